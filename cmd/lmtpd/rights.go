package main

import (
	"cmp"
	"os"

	"dovepost/lmtp/maildir"
)

// warnRights tells the log if mail for users whose row has no uid and gid of its own will wait, because
// this process may not become them.
func (l *lmtpd) warnRights() {
	uid, gid := l.mailUID, l.mailGID
	if l.mysql != "" {
		uid, gid = cmp.Or(uid, "5000"), cmp.Or(gid, "5000")
	}
	u, err := id("uid", "", uid, os.Geteuid())
	var g int
	if err == nil {
		g, err = id("gid", "", gid, os.Getegid())
	}
	if err == nil {
		err = maildir.MayOwn(u, g)
	}
	if err != nil {
		l.env.Log.Warn("mail will wait for users who have the default owner", "mail_uid", u, "mail_gid", g, "err", err)
	}
}
