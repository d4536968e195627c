package postconf

import "dovepost/lookup/ladder"

// order is how Postfix goes through the tables of a parameter.
type order int

const (
	// byKey asks all tables for one form of the key, then for the next form: maps_find.
	// Several tables must become one map.
	byKey order = iota
	// byTable asks one table for all forms of the key, then the next: match_list. Only
	// whether the key is there counts, so tables side by side can become one map.
	byTable
)

// use is what becomes of the tables in a parameter.
type use struct {
	kind  ladder.Kind
	order order
	stays string // not empty: they cannot be replaced, and why
}

const (
	noVirtual  = "virtual(8) takes no socketmap"
	noLocal    = "local(8) takes no socketmap"
	noPostdrop = "postdrop(1) may not connect to the socket"
	noKeys     = "it is not known which keys Postfix asks for here"
)

// uses are the parameters of Postfix that hold tables. What stands for lmtp_ also
// stands for smtp_.
var uses = map[string]use{
	"virtual_alias_maps":       {kind: ladder.Alias},
	"virtual_maps":             {kind: ladder.Alias}, // its name in Postfix 1
	"canonical_maps":           {kind: ladder.Alias},
	"sender_canonical_maps":    {kind: ladder.Alias},
	"recipient_canonical_maps": {kind: ladder.Alias},
	"lmtp_generic_maps":        {kind: ladder.Alias},

	"virtual_mailbox_maps":                    {kind: ladder.Address},
	"local_recipient_maps":                    {kind: ladder.Address},
	"relay_recipient_maps":                    {kind: ladder.Address},
	"relocated_maps":                          {kind: ladder.Address},
	"recipient_bcc_maps":                      {kind: ladder.Address},
	"sender_bcc_maps":                         {kind: ladder.Address},
	"smtpd_sender_login_maps":                 {kind: ladder.Address},
	"sender_dependent_relayhost_maps":         {kind: ladder.Address},
	"sender_dependent_default_transport_maps": {kind: ladder.Address},

	"transport_maps": {kind: ladder.Transport},

	"address_verify_transport_maps":                          {kind: ladder.Transport},
	"address_verify_sender_dependent_relayhost_maps":         {kind: ladder.Address},
	"address_verify_sender_dependent_default_transport_maps": {kind: ladder.Address},

	"mydestination":                      {kind: ladder.Domain, order: byTable},
	"virtual_alias_domains":              {kind: ladder.Domain, order: byTable},
	"virtual_mailbox_domains":            {kind: ladder.Domain, order: byTable},
	"relay_domains":                      {kind: ladder.DomainParents, order: byTable},
	"fast_flush_domains":                 {kind: ladder.DomainParents, order: byTable},
	"mynetworks":                         {kind: ladder.DomainParents, order: byTable},
	"permit_mx_backup_networks":          {kind: ladder.DomainParents, order: byTable},
	"lmtp_connection_cache_destinations": {kind: ladder.Exact, order: byTable},

	// Plain searches: Postfix asks for all that it wants itself, of any table.
	"lmtp_tls_policy_maps":                    {kind: ladder.Exact},
	"lmtp_sasl_password_maps":                 {kind: ladder.Exact}, // see useOf
	"lmtp_discard_ehlo_keyword_address_maps":  {kind: ladder.Exact},
	"lmtp_discard_lhlo_keyword_address_maps":  {kind: ladder.Exact},
	"smtpd_discard_ehlo_keyword_address_maps": {kind: ladder.Exact},
	"smtpd_milter_maps":                       {kind: ladder.Exact},
	"rbl_reply_maps":                          {kind: ladder.Exact},
	"relay_clientcerts":                       {kind: ladder.Exact},
	"mailbox_transport_maps":                  {kind: ladder.Exact},
	"fallback_transport_maps":                 {kind: ladder.Exact},

	"virtual_uid_maps":        {stays: noVirtual},
	"virtual_gid_maps":        {stays: noVirtual},
	"alias_maps":              {stays: noLocal},
	"mailbox_command_maps":    {stays: noLocal},
	"local_login_sender_maps": {stays: noPostdrop},
	"authorized_submit_users": {stays: noPostdrop},
}

// restrictions are the parameters with access restrictions, and the check that a
// bare type:table stands for.
var restrictions = map[string]string{
	"smtpd_client_restrictions":      "check_client_access",
	"smtpd_helo_restrictions":        "check_helo_access",
	"smtpd_sender_restrictions":      "check_sender_access",
	"smtpd_relay_restrictions":       "check_recipient_access",
	"smtpd_recipient_restrictions":   "check_recipient_access",
	"smtpd_etrn_restrictions":        "check_etrn_access",
	"smtpd_data_restrictions":        "",
	"smtpd_end_of_data_restrictions": "",
}

// checks are the restrictions that take a table. The server checks (*_a_access and so
// on) ask for the names and the addresses of servers one by one.
var checks = map[string]ladder.Kind{
	"check_client_access":                     ladder.AccessClient,
	"check_client_a_access":                   ladder.AccessClient,
	"check_client_mx_access":                  ladder.AccessClient,
	"check_client_ns_access":                  ladder.AccessClient,
	"check_reverse_client_hostname_access":    ladder.AccessClient,
	"check_reverse_client_hostname_a_access":  ladder.AccessClient,
	"check_reverse_client_hostname_mx_access": ladder.AccessClient,
	"check_reverse_client_hostname_ns_access": ladder.AccessClient,
	"check_helo_access":                       ladder.DomainParents,
	"check_helo_a_access":                     ladder.AccessClient,
	"check_helo_mx_access":                    ladder.AccessClient,
	"check_helo_ns_access":                    ladder.AccessClient,
	"check_sender_access":                     ladder.AccessAddress,
	"check_sender_a_access":                   ladder.AccessClient,
	"check_sender_mx_access":                  ladder.AccessClient,
	"check_sender_ns_access":                  ladder.AccessClient,
	"check_recipient_access":                  ladder.AccessAddress,
	"check_recipient_a_access":                ladder.AccessClient,
	"check_recipient_mx_access":               ladder.AccessClient,
	"check_recipient_ns_access":               ladder.AccessClient,
	"check_etrn_access":                       ladder.DomainParents,
	"check_sasl_access":                       ladder.Exact,
	"check_ccert_access":                      ladder.Exact,
}

// harmless are parameters that name tables without asking them.
var harmless = map[string]bool{"proxy_read_maps": true, "proxy_write_maps": true}
