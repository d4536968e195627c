package auth

import (
	"encoding/base64"
	"fmt"
	"strings"
)

// words are what somebody says at a socket, after it has said hello or not.
type words struct{ name, text string }

// violations are what a client of auth-client must not say, and what comes near it.
func violations() []words {
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	good := b64("\x00alice@x.org\x00secret")
	auth := func(id, mech, more string) string {
		return "AUTH\t" + id + "\t" + mech + "\tservice=imap" + more + "\n"
	}
	plain := func(more string) string { return auth("1", "PLAIN", more) }
	login := plain("\tresp=" + good)
	padded := func(size int) string { // a line of size octets without its LF
		head, tail := "AUTH\t1\tPLAIN\tservice=imap\tx=", "\tresp="+good
		return head + strings.Repeat("x", size-len(head)-len(tail)) + tail + "\n"
	}
	all := []words{
		// The handshake.
		{"no VERSION", "CPID\t1\n" + plain("")}, {"another major version", "VERSION\t2\t0\nCPID\t1\n" + plain("")}, {"a major version that is none", "VERSION\tx\t2\nCPID\t1\n" + plain("")},
		{"VERSION without minor", "VERSION\t1\nCPID\t1\n" + plain("")}, {"a minor version that is none", "VERSION\t1\tx\nCPID\t1\n" + plain("")}, {"VERSION with more", "VERSION\t1\t2\tx\nCPID\t1\n" + plain("")},
		{"VERSION twice", "VERSION\t1\t2\n" + hello + plain("")}, {"VERSION again", hello + "VERSION\t1\t2\n" + plain("")}, {"a later minor version", "VERSION\t1\t99\nCPID\t1\n" + plain("")},
		{"AUTH before CPID", "VERSION\t1\t2\n" + plain("")}, {"CPID 0", "VERSION\t1\t2\nCPID\t0\n" + plain("")}, {"a CPID that is none", "VERSION\t1\t2\nCPID\tx\n" + plain("")},
		{"a negative CPID", "VERSION\t1\t2\nCPID\t-1\n" + plain("")}, {"an empty CPID", "VERSION\t1\t2\nCPID\n" + plain("")}, {"a CPID of 33 bits", "VERSION\t1\t2\nCPID\t4294967296\n" + plain("")},
		{"the last CPID", "VERSION\t1\t2\nCPID\t4294967295\n" + plain("")}, {"CPID twice", hello + "CPID\t1\n" + plain("")}, {"CPID with more", "VERSION\t1\t2\nCPID\t1\tx\n" + plain("")},
		{"an empty line first", "\n" + hello + plain("")}, {"CR LF", strings.ReplaceAll(hello+login, "\n", "\r\n")},

		// AUTH.
		{"an empty line", hello + "\n" + plain("")}, {"an unknown command", hello + "HELO\t1\n" + plain("")}, {"a command in lower case", hello + strings.ToLower(plain(""))}, {"a master's command", hello + "REQUEST\t1\t2\t3\t00\n"},
		{"AUTH alone", hello + "AUTH\n"}, {"AUTH without mechanism", hello + "AUTH\t1\n"}, {"AUTH without parameters", hello + "AUTH\t1\tPLAIN\n"},
		{"no service", hello + "AUTH\t1\tPLAIN\tresp=" + good + "\n"}, {"an empty service", hello + "AUTH\t1\tPLAIN\tservice=\tresp=" + good + "\n"}, {"service without =", hello + "AUTH\t1\tPLAIN\tservice\tresp=" + good + "\n"},
		{"id 0", hello + auth("0", "PLAIN", "")}, {"a negative id", hello + auth("-1", "PLAIN", "")}, {"an id with a sign", hello + auth("+1", "PLAIN", "")}, {"an id behind a blank", hello + auth(" 1", "PLAIN", "")},
		{"an id that is none", hello + auth("x", "PLAIN", "")}, {"an empty id", hello + auth("", "PLAIN", "")}, {"the last id", hello + auth("4294967295", "PLAIN", "\tresp="+good)}, {"an id of 33 bits", hello + auth("4294967296", "PLAIN", "")},
		{"an id that is used", hello + plain("") + plain("")}, {"one that is used, with zeros", hello + plain("") + auth("0001", "PLAIN", "")},
		{"an unknown mechanism", hello + auth("1", "X-NONE", "")}, {"an empty mechanism", hello + auth("1", "", "")}, {"a mechanism in lower case", hello + auth("1", "plain", "\tresp="+good)},
		{"a parameter behind resp", hello + plain("\tresp="+good+"\tsecured")}, {"an empty one behind resp", hello + plain("\tresp="+good+"\t")}, {"resp twice", hello + plain("\tresp=AA==\tresp="+good)},
		{"resp without =", hello + plain("\tresp")}, {"an empty resp", hello + plain("\tresp=")}, {"resp with = alone", hello + plain("\tresp==")},
		{"a resp that is no base64", hello + plain("\tresp=!!!") + auth("2", "PLAIN", "\tresp="+good)}, {"base64 without its end", hello + plain("\tresp=AAA")}, {"base64 behind its end", hello + plain("\tresp=AA==AA==")},
		{"a blank behind base64", hello + plain("\tresp="+good+" ")}, {"a CR inside", hello + plain("\tresp="+good+"\x01r")}, {"other bits in the last octet", hello + plain("\tresp=AGFsaWNlQHgub3JnAHNlY3JldB==")},
		{"empty parameters", hello + "AUTH\t1\tPLAIN\t\t\tservice=imap\t\tresp=" + good + "\n"}, {"a parameter without name", hello + plain("\t=x\tresp="+good)},
		{"addresses that are none", hello + plain("\trip=foo\tlip=\tlport=99999\trport=-1\tresp="+good)}, {"an address twice", hello + plain("\trip=192.0.2.1\trip=192.0.2.2\tresp="+good)},
		{"the longest line", hello + padded(16383)}, {"a longer one", hello + padded(16384)}, {"a line of 1 MB", hello + padded(1<<20)}, {"1 MB without end", hello + strings.Repeat("x", 1<<20)},
		{"a NUL in the mechanism", hello + "AUTH\t1\tPL\x00AIN\tservice=imap\n"}, {"a NUL at the end", hello + "AUTH\t1\tPLAIN\tservice=imap\tresp=" + good + "\x00x\n"},
		{"an escaped NUL in the service", hello + "AUTH\t1\tPLAIN\tservice=im\x010ap\tresp=" + good + "\n"}, {"an escaped TAB in it", hello + "AUTH\t1\tPLAIN\tservice=im\x01tap\tresp=" + good + "\n"},
		{"half a line", hello + "AUTH\t1\tPLAIN\tservice=imap\tresp=" + good},

		// CONT and CANCEL.
		{"CONT alone", hello + "CONT\n"}, {"CONT without data", hello + plain("") + "CONT\t1\n"}, {"an empty CONT", hello + plain("") + "CONT\t1\t\n"}, {"a CONT", hello + plain("") + "CONT\t1\t" + good + "\n"},
		{"CONT for an unknown id", hello + "CONT\t5\tAAAA\n" + login}, {"CONT for id 0", hello + "CONT\t0\tAAAA\n" + login}, {"CONT for an id that is none", hello + "CONT\tx\tAAAA\n" + login},
		{"a CONT that is no base64", hello + plain("") + "CONT\t1\t!!\nCONT\t1\t" + good + "\n"}, {"a CONT with more", hello + plain("") + "CONT\t1\t" + good + "\tx=y\n"},
		{"one CONT too many", hello + auth("1", "LOGIN", "") + "CONT\t1\t" + b64("alice@x.org") + "\n" + "CONT\t1\t" + b64("secret") + "\nCONT\t1\tAAAA\n"},
		{"CANCEL alone", hello + "CANCEL\n" + plain("")}, {"CANCEL for an unknown id", hello + "CANCEL\t7\n" + plain("")}, {"CANCEL for id 0", hello + "CANCEL\t0\n" + plain("")},
		{"CANCEL for an id that is none", hello + "CANCEL\tx\n" + plain("")}, {"CANCEL with more", hello + plain("") + "CANCEL\t1\tx\n" + plain("")}, {"CONT behind CANCEL", hello + plain("") + "CANCEL\t1\nCONT\t1\t" + good + "\n"},
		{"AUTH behind CANCEL", hello + plain("") + "CANCEL\t1\n" + login}, {"AUTH with the id of one that is over", hello + login + login},
	}
	// What is inside.
	for name, message := range map[string]string{"too few NULs": "alice@x.org", "too many": "\x00alice@x.org\x00sec\x00ret", "no name": "\x00\x00secret", "no password": "\x00alice@x.org\x00",
		"a name with a blank": "\x00al ice\x00secret", "one with a TAB and LF": "\x00al\tice\n\x00secret", "one in capitals": "\x00ALICE@x.org\x00wrong", "an unknown one": "\x00NOBODY@x.org\x00secret",
		"one of 1000 octets": "\x00" + strings.Repeat("a", 1000) + "\x00secret", "a password of 1000": "\x00alice@x.org\x00" + strings.Repeat("a", 1000), "8-bit octets": "\x00\xe4\xff\x00\xe4\xff",
		"the same authzid": "alice@x.org\x00Alice@x.org\x00secret"} {
		all = append(all, words{"PLAIN with " + name, hello + plain("\tresp="+b64(message))})
	}
	for name, messages := range map[string][]string{"a name with NUL": {"al\x00ice"}, "a password with NUL": {"alice@x.org", "sec\x00ret"}, "no password": {"alice@x.org", ""}, "what is right": {"alice@x.org", "secret"}} {
		text := hello + auth("1", "LOGIN", "")
		for _, m := range messages {
			text += "CONT\t1\t" + b64(m) + "\n"
		}
		all = append(all, words{"LOGIN with " + name, text})
	}
	return append(all, words{"LOGIN with the name at once", hello + auth("1", "LOGIN", "\tresp="+b64("alice@x.org")) + "CONT\t1\t" + b64("secret") + "\n"}, words{"LOGIN with an empty one", hello + auth("1", "LOGIN", "\tresp=")})
}

// masterViolations are the same for auth-master.
func masterViolations() []words {
	const v, user = "VERSION\t1\t1\n", "USER\t1\talice@x.org\tservice=imap\n"
	request := func(params string) string { return v + "REQUEST\t" + params + "\n" }
	zeros := strings.Repeat("0", 32)
	return []words{
		{"no VERSION", user}, {"another major version", "VERSION\t2\t1\n" + user}, {"VERSION twice", v + v + user}, {"VERSION with more", "VERSION\t1\t1\tx\n" + user}, {"CR LF", strings.ReplaceAll(v+user, "\n", "\r\n")},
		{"minor version 0", "VERSION\t1\t0\n" + user}, {"CPID", v + "CPID\t1\n" + user}, {"an empty line", v + "\n" + user}, {"an unknown command", v + "HELO\t1\n"}, {"a command in lower case", v + "user\t1\talice@x.org\tservice=imap\n"},
		{"USER alone", v + "USER\n"}, {"USER without name", v + "USER\t1\n"}, {"USER without service", v + "USER\t1\talice@x.org\n"}, {"an empty service", v + "USER\t1\talice@x.org\tservice=\n"},
		{"id 0", v + "USER\t0\talice@x.org\tservice=imap\n"}, {"an id that is none", v + "USER\tx\talice@x.org\tservice=imap\n"}, {"a negative id", v + "USER\t-1\talice@x.org\tservice=imap\n"},
		{"the last id", v + "USER\t4294967295\talice@x.org\tservice=imap\n"}, {"an id of 33 bits", v + "USER\t4294967296\talice@x.org\tservice=imap\n"}, {"an id twice", v + user + user},
		{"an empty name", v + "USER\t1\t\tservice=imap\n"}, {"a name with a blank", v + "USER\t1\tal ice\tservice=imap\n"}, {"one with a TAB", v + "USER\t1\talice@x.org\x01t\tservice=imap\n"}, {"an unknown one", v + "USER\t1\tnobody\tservice=imap\n"},
		{"one in capitals", v + "USER\t1\tALICE@x.org\tservice=imap\n"}, {"unknown parameters", v + "USER\t1\talice@x.org\tservice=imap\tdebug\trip=foo\tfoo=bar\t\t=x\n"}, {"a NUL", v + "USER\t1\talice@x.org\tservice=imap\x00x\n"},
		{"PASS alone", v + "PASS\n"}, {"PASS without name", v + "PASS\t1\n"}, {"PASS without service", v + "PASS\t1\talice@x.org\n"}, {"PASS for nobody", v + "PASS\t1\tnobody\tservice=imap\n"}, {"PASS with a blank", v + "PASS\t1\tno body\tservice=imap\n"},
		{"LIST alone", v + "LIST\n"}, {"LIST without parameters", v + "LIST\t1\n"}, {"LIST with id 0", v + "LIST\t0\n"}, {"LIST with an id that is none", v + "LIST\tx\n"},
		{"REQUEST alone", v + "REQUEST\n"}, {"REQUEST without cookie", request("1\t2\t3")}, {"REQUEST for nobody", request("1\t2\t3\t" + zeros)}, {"a short cookie", request("1\t2\t3\t00")},
		{"REQUEST with id 0", request("0\t2\t3\t" + zeros)}, {"the pid 0", request("1\t0\t3\t" + zeros)}, {"the client's id 0", request("1\t1\t0\t" + zeros)}, {"a pid that is none", request("1\tx\t1\t" + zeros)},
		{"a session_pid that is none", request("1\t2\t3\t" + zeros + "\tsession_pid=x")}, {"CACHE-FLUSH", v + "CACHE-FLUSH\t1\n"}, {"CACHE-FLUSH alone", v + "CACHE-FLUSH\n"}, {"CACHE-FLUSH of users", v + "CACHE-FLUSH\t1\ta\tb\n"},
		{"1 MB", v + fmt.Sprintf("USER\t1\t%s\tservice=imap\n", strings.Repeat("x", 1<<20))}, {"1 MB without end", v + strings.Repeat("x", 1<<20)}, {"half a line", v + "USER\t1\talice@x.org\tservice=imap"},
	}
}
