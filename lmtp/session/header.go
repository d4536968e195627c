package session

import "time"

// DeliveryAddress says which address Delivered-To and Received name: Dovecot's
// lmtp_hdr_delivery_address.
type DeliveryAddress int

const (
	DeliveryFinal    DeliveryAddress = iota // the RCPT address
	DeliveryOriginal                        // the ORCPT address
	DeliveryNone
)

// appendHeader appends the headers of the final delivery, LF line ends: RFC 5321
// 4.4, laid out as Dovecot's LMTP does. They name a recipient only when there is
// no other, so one text serves all recipients.
func (h *Handler) appendHeader(b []byte, t *transaction) []byte {
	b = append(b, "Return-Path: <"...)
	b = append(b, t.env.Sender...)
	b = append(b, ">\n"...)
	deliveredTo, receivedFor := h.deliveryAddresses(t)
	if deliveredTo != "" {
		b = append(b, "Delivered-To: "...)
		b = append(b, deliveredTo...)
		b = append(b, '\n')
	}
	if h.NoReceived {
		return b
	}
	b = append(b, "Received: from "...)
	if t.env.Hello != "" {
		b = append(b, t.env.Hello...)
	} else {
		b = append(b, "unknown"...)
	}
	if t.env.RemoteAddr != "" {
		b = append(b, " (["...)
		b = append(b, t.env.RemoteAddr...)
		b = append(b, "])"...)
	}
	if t.env.TLS != "" {
		b = append(b, "\n\t(using "...)
		b = append(b, t.env.TLS...)
		b = append(b, ')')
	}
	b = append(b, "\n\tby "...)
	b = append(b, h.Hostname...)
	b = append(b, " with LMTP"...)
	if t.env.TLS != "" {
		b = append(b, 'S') // RFC 3848
	}
	b = append(b, "\n\tid "...)
	b = append(b, t.id...)
	b = append(b, "\n\t(envelope-from <"...)
	b = append(b, t.env.Sender...)
	b = append(b, ">)"...)
	if receivedFor != "" {
		b = append(b, "\n\tfor <"...)
		b = append(b, receivedFor...)
		b = append(b, '>')
	}
	b = append(b, "; "...)
	b = t.begun.AppendFormat(b, time.RFC1123Z)
	return append(b, '\n')
}

// deliveryAddresses returns what Delivered-To and "for" say; empty for nothing.
func (h *Handler) deliveryAddresses(t *transaction) (deliveredTo, receivedFor string) {
	if len(t.rcpts) != 1 || h.DeliveryAddress == DeliveryNone {
		return "", ""
	}
	r := &t.rcpts[0]
	if h.DeliveryAddress == DeliveryFinal {
		return r.text, r.text
	}
	if r.orcpt.IsNull() {
		return "", r.text
	}
	return r.orcpt.String(), r.orcpt.String()
}
