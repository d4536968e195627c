package lookup

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A setting is one of main.cf.fragment.
type setting struct{ name, value string }

// kept are the settings of a fragment that say how tables are used. What else is
// not about tables, such as the way to a mailbox, is left out.
var kept = []string{"recipient_delimiter", "propagate_unmatched_extensions", "parent_domain_matches_subdomains",
	"owner_request_special", "virtual_alias_domains", "virtual_mailbox_domains", "relay_domains", "mydestination"}

// fragment reads main.cf.fragment.
func (l *layout) fragment(t *testing.T) (all []setting) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(l.dir, "main.cf.fragment"))
	must(t, err)
	for _, line := range splitLines(string(text)) {
		switch {
		case strings.TrimSpace(line) == "" || strings.HasPrefix(strings.TrimSpace(line), "#"):
		case line[0] == ' ' || line[0] == '\t':
			all[len(all)-1].value += " " + strings.TrimSpace(line)
		default:
			name, value, _ := strings.Cut(line, "=")
			all = append(all, setting{strings.TrimSpace(name), strings.TrimSpace(value)})
		}
	}
	return slices.DeleteFunc(all, func(s setting) bool { return !slices.Contains(kept, s.name) && !strings.Contains(s.value, "mysql:") })
}

func words(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return strings.ContainsRune(", \t\r\n", r) })
}

// withoutServices drops from a list of restrictions what asks somebody else.
func withoutServices(s setting) (list []string) {
	list = words(s.value)
	if !strings.HasSuffix(s.name, "_restrictions") {
		return list
	}
	for i := 0; i < len(list); i++ {
		switch list[i] {
		case "check_policy_service":
			list = slices.Delete(list, i, i+2)
			i--
		case "reject_unverified_recipient", "reject_unverified_sender":
			list = slices.Delete(list, i, i+1)
			i--
		}
	}
	return list
}

// file returns the copy of the file that a word of a fragment names.
func (l *layout) file(t *testing.T, word string) (copied, table string, ok bool) {
	t.Helper()
	table, rest, ok := strings.Cut(word, "mysql:")
	if !ok {
		return "", "", false
	}
	for _, prefix := range []string{"", "mysql-", "mysql_"} {
		for _, file := range l.files {
			if filepath.Base(file) == prefix+path.Base(rest) {
				return file, table + "mysql:" + file, true
			}
		}
	}
	t.Fatalf("%s: main.cf.fragment names %s, which is not there", l.name, rest)
	return "", "", false
}

// native returns the fragment with the tables that it names.
func (l *layout) native(t *testing.T) (main string) {
	for _, s := range l.fragment(t) {
		list := withoutServices(s)
		for i, word := range list {
			if _, table, ok := l.file(t, word); ok {
				list[i] = table
			}
		}
		main += s.name + " = " + strings.Join(list, " ") + "\n"
	}
	return main
}

// ours returns the fragment with socketmaps instead, and lookupd's arguments.
func (l *layout) ours(t *testing.T) (main string, args []string) {
	for _, s := range l.fragment(t) {
		var list, files []string
		name := s.name
		for i, word := range withoutServices(s) {
			file, _, ok := l.file(t, word)
			switch {
			case !ok:
				list = append(list, word)
			case strings.HasSuffix(s.name, "_restrictions"): // every table is asked on its own
				name = fmt.Sprintf("%s_access%d", s.name, i)
				kind := "access-address"
				if i > 0 && (list[len(list)-1] == "check_client_access" || list[len(list)-1] == "check_reverse_client_hostname_access") {
					kind = "access-client"
				}
				list = append(list, "socketmap:unix:dovepost/lookup:"+name)
				args = append(args, "--map="+name+"="+kind+":"+file)
			default: // all of a parameter are one map
				if files == nil {
					list = append(list, "socketmap:unix:dovepost/lookup:"+name)
				}
				files = append(files, file)
			}
		}
		if files != nil {
			args = append(args, "--map="+name+"="+kindOf(name)+":"+strings.Join(files, ","))
		}
		switch s.name {
		case "recipient_delimiter", "propagate_unmatched_extensions", "parent_domain_matches_subdomains":
			args = append(args, "--"+s.name+"="+s.value)
		}
		main += s.name + " = " + strings.Join(list, " ") + "\n"
	}
	return main, args
}

// kindOf is what the manual of lookupd says about parameters.
func kindOf(parameter string) string {
	switch {
	case parameter == "virtual_alias_maps", strings.HasSuffix(parameter, "canonical_maps"), strings.HasSuffix(parameter, "generic_maps"):
		return "alias"
	case parameter == "relay_domains":
		return "domain-parents"
	case strings.HasSuffix(parameter, "_domains"), parameter == "mydestination":
		return "domain"
	case parameter == "transport_maps":
		return "transport"
	case strings.HasSuffix(parameter, "_tls_policy_maps"):
		return "exact"
	}
	return "address"
}
