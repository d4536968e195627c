package scheme

import (
	"bytes"
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha1"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	//lint:ignore SA1019 NT hashes are defined by it
	"golang.org/x/crypto/md4"
)

// The formats of crypt(5) that come from elsewhere: from Solaris ($md5), NetBSD
// ($sha1$) and Windows ($3$). They are verified for rows that a site brought along.

const (
	sunMD5BasicRounds = 4096
	sunMD5MaxRounds   = 2_000_000 // about two seconds; crypt(5) itself would allow 4,294,963,199
	sunMD5Text        = 22
	sha1CryptMaxSalt  = 64
	sha1CryptText     = 28
	sha1CryptMax      = 5_000_000 // about a second; crypt(5) itself would allow 4,294,967,295
)

// verifyNT: $3$$ and MD4 of the password in UTF-16, little-endian. Like crypt(3), it
// takes the octets of the password for its characters.
func verifyNT(value, password []byte) (bool, error) {
	text, ok := bytes.CutPrefix(value, []byte("$3$$"))
	if !ok || len(text) != hex.EncodedLen(md4.Size) {
		return false, fmt.Errorf("%w: length", ErrMalformed)
	}
	h := md4.New()
	for _, c := range password {
		h.Write([]byte{c, 0})
	}
	return subtle.ConstantTimeCompare(hex.AppendEncode(nil, h.Sum(nil)), text) == 1, nil
}

// verifySHA1Crypt: $sha1$rounds$salt$hash, HMAC-SHA-1 keyed with the password, again
// and again, over salt, prefix and rounds to begin with.
func verifySHA1Crypt(value, password []byte) (bool, error) {
	parts := strings.Split(string(value), "$")
	if len(parts) != 5 || len(parts[4]) != sha1CryptText || len(parts[3]) < 1 || len(parts[3]) > sha1CryptMaxSalt {
		return false, fmt.Errorf("%w: salt or hash", ErrMalformed)
	}
	rounds, err := parseCount(parts[2], 1, sha1CryptMax)
	if err != nil {
		return false, err
	}
	m := hmac.New(sha1.New, password)
	m.Write([]byte(parts[3] + "$sha1$" + parts[2]))
	d := m.Sum(nil)
	for range rounds - 1 {
		m.Reset()
		m.Write(d)
		d = m.Sum(d[:0])
	}
	text := make([]byte, 0, sha1CryptText)
	for i := 0; i < sha1.Size; i += 3 {
		last := d[0]
		if i+2 < sha1.Size {
			last = d[i+2]
		}
		text = appendCrypt64(text, uint32(d[i])<<16|uint32(d[i+1])<<8|uint32(last), 4)
	}
	return subtle.ConstantTimeCompare(text, []byte(parts[4])) == 1, nil
}

// verifySunMD5: $md5$salt$$hash or $md5,rounds=N$salt$$hash. Old ones have one $
// before the hash; then the last $ of the setting is not a part of what is hashed.
func verifySunMD5(value, password []byte) (bool, error) {
	end := len(value) - sunMD5Text - 1
	if end < 0 || value[end] != '$' {
		return false, fmt.Errorf("%w: length", ErrMalformed)
	}
	setting, text := value[:end], value[end+1:]
	rounds := sunMD5BasicRounds
	rest := string(setting[len("$md5"):])
	if after, ok := strings.CutPrefix(strings.TrimLeft(rest, ",$"), "rounds="); ok && len(rest) == len(after)+len(",rounds=") {
		digits, after, ok := strings.Cut(after, "$")
		if !ok {
			return false, fmt.Errorf("%w: no salt", ErrMalformed)
		}
		more, err := parseCount(digits, 1, sunMD5MaxRounds)
		if err != nil {
			return false, err
		}
		rounds, rest = rounds+more, "$"+after
	}
	if !strings.HasPrefix(rest, "$") || strings.Contains(strings.TrimSuffix(rest[1:], "$"), "$") {
		return false, fmt.Errorf("%w: salt", ErrMalformed)
	}
	got := sunMD5(password, setting, rounds)
	return subtle.ConstantTimeCompare(got, text) == 1, nil
}

// sunMD5 is Alec Muffett's algorithm of 2005. Each round tosses a coin, which the
// last digest decides, about whether a piece of Shakespeare is hashed as well.
func sunMD5(password, setting []byte, rounds int) []byte {
	d := md5.Sum(bytes.Join([][]byte{password, setting}, nil))
	msg := make([]byte, 0, md5.Size+len(hamlet)+10)
	for round := range rounds {
		msg = append(msg[:0], d[:]...)
		if sunCoin(&d, uint(round)) {
			msg = append(msg, hamlet...)
		}
		msg = strconv.AppendInt(msg, int64(round), 10)
		d = md5.Sum(msg)
	}
	return appendMD5Text(nil, &d)
}

func sunCoin(d *[md5.Size]byte, round uint) bool {
	bit := func(n uint) uint { return uint(d[n/8%md5.Size]>>(n%8)) & 1 }
	side := func(from uint) (n uint) {
		for i := range uint(8) {
			a, b := d[(i+from)%md5.Size], d[(i+from+3)%md5.Size]
			v := d[a>>(b%5)%md5.Size]
			if b>>(a%8)&1 != 0 {
				v /= 2
			}
			n |= bit(uint(v)) << i
		}
		return n >> bit(round+8*from)
	}
	return bit(side(0)) != bit(side(8))
}

// hamlet is act 3, scene 1, as Project Gutenberg has it, with a NUL behind it.
const hamlet = `To be, or not to be,--that is the question:--
Whether 'tis nobler in the mind to suffer
The slings and arrows of outrageous fortune
Or to take arms against a sea of troubles,
And by opposing end them?--To die,--to sleep,--
No more; and by a sleep to say we end
The heartache, and the thousand natural shocks
That flesh is heir to,--'tis a consummation
Devoutly to be wish'd. To die,--to sleep;--
To sleep! perchance to dream:--ay, there's the rub;
For in that sleep of death what dreams may come,
When we have shuffled off this mortal coil,
Must give us pause: there's the respect
That makes calamity of so long life;
For who would bear the whips and scorns of time,
The oppressor's wrong, the proud man's contumely,
The pangs of despis'd love, the law's delay,
The insolence of office, and the spurns
That patient merit of the unworthy takes,
When he himself might his quietus make
With a bare bodkin? who would these fardels bear,
To grunt and sweat under a weary life,
But that the dread of something after death,--
The undiscover'd country, from whose bourn
No traveller returns,--puzzles the will,
And makes us rather bear those ills we have
Than fly to others that we know not of?
Thus conscience does make cowards of us all;
And thus the native hue of resolution
Is sicklied o'er with the pale cast of thought;
And enterprises of great pith and moment,
With this regard, their currents turn awry,
And lose the name of action.--Soft you now!
The fair Ophelia!--Nymph, in thy orisons
Be all my sins remember'd.
` + "\x00"
