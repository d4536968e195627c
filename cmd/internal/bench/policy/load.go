package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// patience is for all questions of one round.
const patience = 2 * time.Minute

// Who sends in the load: as many logged-in users as strangers, each again and again.
const people = 200

// attributes are what Postfix 3.7 asks, in its order.
const attributes = `request=smtpd_access_policy
protocol_state=%[1]s
protocol_name=ESMTP
client_address=%[2]s
client_name=%[3]s
client_port=40000
reverse_client_name=%[3]s
server_address=127.0.0.1
server_port=25
helo_name=%[3]s
sender=%[4]s
recipient=%[5]s
recipient_count=%[6]d
queue_id=%[7]s
instance=%[8]s
size=%[9]d
etrn_domain=
stress=
sasl_method=%[10]s
sasl_username=%[11]s
sasl_sender=
ccert_subject=
ccert_issuer=
ccert_fingerprint=
ccert_pubkey_fingerprint=
encryption_protocol=TLSv1.3
encryption_cipher=TLS_AES_256_GCM_SHA384
encryption_keysize=256
policy_context=

`

// message returns what is asked about one message: at RCPT, and at its end. Even ones are from
// users who have logged in, odd ones from strangers to users.
func message(n int) []string {
	who := n / 2 % people
	client, name := fmt.Sprintf("198.51.%d.7", who), fmt.Sprintf("mx%d.far.example", who)
	sender, recipient := fmt.Sprintf("someone@far%d.example", who), user(who)
	method, login := "", ""
	if n%2 == 0 {
		client, name = fmt.Sprintf("203.0.113.%d", who), "unknown"
		sender, recipient = user(who), fmt.Sprintf("someone@far%d.example", who)
		method, login = "PLAIN", user(who)
	}
	instance := fmt.Sprintf("4d2.%x.%x.0", n, time.Now().UnixNano())
	ask := func(state string, recipients int, id string, size int) string {
		return fmt.Sprintf(attributes, state, client, name, sender, recipient, recipients, id, instance, size, method, login)
	}
	return []string{ask("RCPT", 0, "", 0), ask("END-OF-MESSAGE", 1, fmt.Sprintf("4bQ%09X", n), 4711)}
}

// user returns the address of a user, which is the login, too.
func user(n int) string { return fmt.Sprintf("user%03d@example.com", n) }

// rate asks about so many messages over so many connections at a time, as smtpd does: the next
// question of a connection follows the answer to the last. It returns how many answers came in
// a second. An answer that is not DUNNO is an error.
func rate(network, addr string, clients, messages int) (float64, error) {
	var conns []net.Conn
	for range clients {
		c, err := net.Dial(network, addr)
		if err != nil {
			return 0, err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(patience))
		conns = append(conns, c)
	}
	questions := make([][]string, clients) // made before the clock runs
	for n := range messages {
		i := n % clients
		questions[i] = append(questions[i], message(n)...)
	}
	var asking errgroup.Group
	began := time.Now()
	for i, c := range conns {
		asking.Go(func() error { return ask(c, questions[i]) })
	}
	err := asking.Wait()
	return 2 * float64(messages) / time.Since(began).Seconds(), err
}

func ask(c net.Conn, questions []string) error {
	r := bufio.NewReader(c)
	for _, q := range questions {
		if _, err := io.WriteString(c, q); err != nil {
			return err
		}
		answer, err := r.ReadString('\n')
		if err != nil {
			return err
		}
		if !strings.EqualFold(answer, "action=dunno\n") {
			return fmt.Errorf("answer %.100q to\n%s", answer, q)
		}
		if _, err := r.ReadString('\n'); err != nil {
			return err
		}
	}
	return nil
}
