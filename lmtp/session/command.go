package session

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// command answers one command line. Errors: errQuit, or what ends the connection.
func (s *session) command(ctx context.Context, line []byte) error {
	verb, arg, ok := parseCommand(line)
	odd := false
	if !ok {
		// What Postfix lets a local user give as sender can have any octet.
		if verb, arg, odd = parseCommand(replaceOdd(line)); !odd || verb != "MAIL" {
			return s.refuse("500 5.5.2 Invalid command syntax")
		}
	}
	s.ended = false
	switch verb {
	case "LHLO":
		return s.lhlo(arg)
	case "MAIL":
		return s.mail(arg, odd)
	case "RCPT":
		return s.rcpt(ctx, arg)
	case "DATA":
		return s.data(ctx, arg)
	case "BDAT":
		return s.bdat(ctx, arg)
	case "VRFY":
		if arg == "" {
			return s.refuse("501 5.5.4 Invalid parameters")
		}
		return s.accept("252 2.3.3 Try RCPT instead")
	case "STARTTLS":
		return s.starttls(ctx, arg)
	case "XFORWARD":
		return s.xforward(arg)
	case "XCLIENT":
		return s.xclient(arg)
	case "NOOP":
		return s.accept("250 2.0.0 OK")
	case "RSET", "QUIT":
		if arg != "" {
			return s.refuse("501 5.5.4 Invalid parameters")
		}
		s.endTransaction()
		if verb == "RSET" {
			if !s.farewell.IsZero() {
				return errDrain
			}
			return s.accept("250 2.0.0 OK")
		}
		s.reply("221 2.0.0 Bye")
		return errQuit
	}
	return s.refuse("500 5.5.1 Unknown command")
}

// parseCommand divides a line into a verb in upper case and its argument without
// trailing blanks. Lines that are not UTF-8 text are refused whole, so that
// nothing behind this point meets a control character. RFC 5321 4.1.1, RFC 6531 3.3.
func parseCommand(line []byte) (verb, arg string, ok bool) {
	for _, c := range line {
		if c < ' ' && c != '\t' || c == 0x7f {
			return "", "", false
		}
	}
	if !utf8.Valid(line) {
		return "", "", false
	}
	text := strings.TrimRight(string(line), " \t")
	n := 0
	for n < len(text) && isAlpha(text[n]) {
		n++
	}
	verb, arg = strings.ToUpper(text[:n]), text[n:]
	if n > 32 || arg != "" && arg[0] != ' ' {
		return "", "", false
	}
	arg = strings.TrimPrefix(arg, " ")
	if n > 0 && strings.HasPrefix(arg, " ") {
		return "", "", false
	}
	return verb, arg, true
}

// replaceOdd returns line with the replacement character for what parseCommand does not
// take.
func replaceOdd(line []byte) []byte {
	return bytes.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return utf8.RuneError
		}
		return r
	}, line)
}

func isAlpha(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

func (s *session) lhlo(arg string) error {
	if arg == "" {
		return s.refuse("501 Missing hostname")
	}
	s.endTransaction()
	s.hello = helloName(arg)
	s.bad = 0
	size := "250-SIZE"
	if s.h.MaxSize > 0 {
		size += " " + strconv.FormatInt(s.h.MaxSize, 10)
	}
	for _, line := range []string{
		"250-" + s.h.Hostname, "250-8BITMIME", "250-CHUNKING", "250-ENHANCEDSTATUSCODES", "250-PIPELINING", size,
	} {
		s.reply(line)
	}
	if s.offersTLS() {
		s.reply("250-STARTTLS")
	}
	if s.trusted() {
		s.reply("250-" + xclientWords)
	}
	if s.forwards() {
		s.reply("250-" + xforwardWords)
	}
	s.reply("250 SMTPUTF8")
	return nil
}

// helloName returns the domain or address literal at the start of arg, empty if
// there is none: RFC 5321 4.1.1.1.
func helloName(arg string) string {
	name, _, _ := strings.Cut(arg, " ")
	parse := parseDomain
	if strings.HasPrefix(name, "[") {
		parse = parseLiteral
	}
	if _, rest, err := parse(name); err != nil || rest != "" {
		return ""
	}
	for i := 0; i < len(name); i++ {
		if name[i] >= 0x80 { // RFC 6531 3.7.1: A-labels only
			return ""
		}
	}
	return name
}

// mail answers MAIL. odd says that octets in arg were replaced: the sender is not the
// one that the client has.
func (s *session) mail(arg string, odd bool) error {
	if s.tx != nil {
		return s.refuse("503 5.5.0 MAIL already given")
	}
	if !hasKeyword(arg, "FROM:") {
		return s.refuse("501 5.5.4 Invalid parameters")
	}
	from, rest, err := parseSender(arg[len("FROM:"):])
	if err != nil {
		return s.refuse("501 5.5.4 Invalid FROM: " + err.Error())
	}
	params, err := parseMailParams(rest)
	if err != nil {
		return s.refuseParam(err)
	}
	if s.h.MaxSize > 0 && params.size > s.h.MaxSize {
		return s.accept("552 5.3.4 Message size exceeds administrative limit")
	}
	if s.h.SpoolDisk > 0 && params.size > s.h.SpoolDisk {
		return s.accept("452 4.3.1 Insufficient system storage")
	}
	if odd {
		from = Address{}
	}
	s.begun++
	s.tx = s.newTransaction(from)
	s.tx.announced = max(params.size, 0)
	return s.accept("250 2.1.0 OK")
}

func hasKeyword(arg, keyword string) bool {
	return len(arg) >= len(keyword) && strings.EqualFold(arg[:len(keyword)], keyword)
}

// parseSender reads the path of MAIL and returns it with the parameters after it.
// A sender that is no address, or has no domain, is the null sender, as for
// Dovecot: nobody could answer, but that is no reason to refuse the message.
func parseSender(s string) (from Address, params string, err error) {
	from, rest, err := ParsePath(s)
	if err == errPathClose && from.Domain == "" {
		err = errLocalChar
	}
	if err != nil {
		after, ok := skipPath(s)
		if !ok {
			return Address{}, "", err
		}
		rest, err = after, nil
		from = Address{}
	}
	if from.Domain == "" {
		from = Address{}
	}
	params, err = cutParams(rest)
	return from, params, err
}

// parseRecipient reads the path of RCPT and returns it with the parameters after it.
func parseRecipient(s string) (to Address, params string, err error) {
	to, rest, err := ParsePath(s)
	if err == nil && to.IsNull() {
		err = errPathNull
	}
	if err == nil {
		params, err = cutParams(rest)
	}
	return to, params, err
}

// cutParams returns the parameters in what follows a path.
func cutParams(rest string) (string, error) {
	if rest != "" && rest[0] != ' ' {
		return "", errPathChar
	}
	return strings.TrimPrefix(rest, " "), nil
}

// refuseParam answers a parameter's error, which is a reply line.
func (s *session) refuseParam(err error) error {
	if err == errUnsupported || err == errBodyType {
		return s.accept(err.Error())
	}
	return s.refuse(err.Error())
}

func (s *session) data(ctx context.Context, arg string) error {
	switch {
	case arg != "":
		return s.refuse("501 5.5.4 Invalid parameters")
	case s.tx == nil:
		return s.refuse("503 5.5.0 MAIL needed first")
	case s.tx.spool != nil:
		return s.refuse("503 5.5.0 Bad sequence of commands")
	case len(s.tx.rcpts) == 0:
		return s.refuse("503 5.5.0 No valid recipients")
	}
	if s.tx.announced > largeBuffer { // it may have to wait
		if err := s.w.Flush(); err != nil {
			return err
		}
	}
	if err := s.startMessage(ctx); err != nil {
		s.stopMessage()
		return s.accept(s.spoolStatus(err).Error())
	}
	s.accept("354 OK")
	if err := s.w.Flush(); err != nil {
		return err
	}
	s.conn.within(s.h.dataTimeout())
	if err := readData(s.r, s.tx.spool); err != nil {
		return err
	}
	s.conn.within(0)
	s.deliver(ctx)
	return nil
}

// bdat reads one chunk: RFC 3030 2, RFC 2033 4.3. The octets are read past also
// when the chunk is refused, or they would run as commands.
func (s *session) bdat(ctx context.Context, arg string) error {
	sizeText, mark, marked := strings.Cut(arg, " ")
	size, err := parseSize(sizeText)
	if err != nil {
		// Where the chunk ends is unknown, so nothing after it can be a command.
		s.reply("501 5.5.4 Invalid chunk size parameter")
		return errQuit
	}
	last := marked && strings.EqualFold(mark, "LAST")
	refusal := ""
	switch {
	case marked && !last:
		refusal = "501 5.5.4 Invalid end marker parameter"
	case s.tx == nil:
		refusal = "503 5.5.0 MAIL needed first"
	case s.tx.failed:
		refusal = "503 5.5.0 Previous data chunk failed, issue RSET first"
	case len(s.tx.rcpts) == 0:
		refusal = "503 5.5.0 No valid recipients"
	}
	if refusal != "" {
		return s.refuseChunk(size, last, refusal)
	}
	if s.tx.spool == nil {
		if err := s.startMessage(ctx); err != nil {
			s.stopMessage()
			return s.refuseChunk(size, last, s.spoolStatus(err).Error())
		}
	}
	if err := s.readChunk(size, &s.tx.decoder, s.tx.spool); err != nil {
		return err
	}
	if last {
		s.tx.decoder.end(s.tx.spool)
		s.deliver(ctx)
		return nil
	}
	if err := s.tx.spool.err; err != nil {
		s.tx.failed = true
		return s.accept(s.spoolStatus(err).Error())
	}
	return s.accept(fmt.Sprintf("250 2.0.0 Added %d octets", size))
}

// readChunk reads a chunk of size octets in the time that it has. A client may want the
// replies to what it sent before the chunk first: RFC 2920 3.2.
func (s *session) readChunk(size int64, d *decoder, to sink) error {
	if int64(s.r.Buffered()) < size {
		if err := s.w.Flush(); err != nil {
			return err
		}
	}
	s.conn.within(s.h.dataTimeout())
	defer s.conn.within(0)
	return readChunk(s.r, size, d, to)
}

// refuseChunk reads past a chunk and refuses it, and with it the rest of the
// message. The last chunk has one reply for each accepted recipient, also if that
// is none; RFC 2033 4.3.
func (s *session) refuseChunk(size int64, last bool, refusal string) error {
	if err := s.readChunk(size, new(decoder), discard{}); err != nil {
		return err
	}
	replies := 1
	if s.tx != nil {
		s.tx.failed = true
		if last {
			replies = len(s.tx.rcpts)
			s.endTransaction()
		}
	}
	for i := range replies {
		if i > 0 {
			s.reply(refusal)
		} else if err := s.refuse(refusal); err != nil {
			return err
		}
	}
	return nil
}

// discard is the sink of octets that nobody wants.
type discard struct{}

func (discard) add([]byte) {}
