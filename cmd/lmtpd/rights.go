package main

import (
	"dovepost/lmtp/maildir"
)

// warnRights tells the log if mail for users whose row has no uid and gid of its own will wait, because
// this process may not become them.
func (l *lmtpd) warnRights() {
	uid, gid, err := l.mail.Owner(l.mysql != "")
	if err == nil {
		err = maildir.MayOwn(uid, gid)
	}
	if err != nil {
		l.env.Log.Warn("mail will wait for users who have the default owner", "mail_uid", uid, "mail_gid", gid, "err", err)
	}
}
