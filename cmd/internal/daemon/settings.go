package daemon

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/pflag"
)

// Longest logical line and longest file that a settings file may have, in octets.
const (
	maxSettingLine = 64 << 10
	maxSettingFile = 4 << 20
)

// A setting is one logical line of a settings file.
type setting struct {
	name, value string
	line        int // where the logical line begins, from 1
}

// readSettings reads `name = value` lines as postconf(5) describes them: empty
// lines and lines whose first non-blank is # are ignored, a line that begins with
// white space continues the one before, blanks around name and value are dropped.
func readSettings(r io.Reader) ([]setting, error) {
	var (
		all  []setting
		open bool // the last element of all still takes continuation lines
		raw  string
		n    int
	)
	scan := bufio.NewScanner(io.LimitReader(r, maxSettingFile+1))
	scan.Buffer(nil, maxSettingLine)
	total := 0
	closeLine := func() error {
		if !open {
			return nil
		}
		open = false
		s := &all[len(all)-1]
		name, value, found := strings.Cut(raw, "=")
		name = strings.TrimSpace(name)
		if !found || name == "" || strings.ContainsAny(name, " \t") {
			return fmt.Errorf("line %d: want name = value", s.line)
		}
		s.name, s.value = name, strings.TrimSpace(value)
		return nil
	}
	for scan.Scan() {
		n++
		line := scan.Text()
		if total += len(line) + 1; total > maxSettingFile {
			return nil, fmt.Errorf("line %d: file is larger than %d octets", n, maxSettingFile)
		}
		trimmed := strings.TrimSpace(line)
		if trimmed == "" || trimmed[0] == '#' {
			continue
		}
		if strings.IndexByte(line, 0) >= 0 {
			return nil, fmt.Errorf("line %d: NUL octet", n)
		}
		if line[0] == ' ' || line[0] == '\t' {
			if !open {
				return nil, fmt.Errorf("line %d: begins with white space but continues nothing", n)
			}
			if raw += " " + trimmed; len(raw) > maxSettingLine {
				return nil, fmt.Errorf("line %d: longer than %d octets", n, maxSettingLine)
			}
			continue
		}
		if err := closeLine(); err != nil {
			return nil, err
		}
		all, raw, open = append(all, setting{line: n}), trimmed, true
	}
	if err := scan.Err(); err != nil {
		return nil, fmt.Errorf("line %d: %w", n+1, err)
	}
	return all, closeLine()
}

// ReadSettings returns what a daemon's settings file says, by name; of one that is there twice the last. Errors
// name the file.
func ReadSettings(path string) (map[string]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	all, err := readSettings(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	values := map[string]string{}
	for _, s := range all {
		values[strings.ReplaceAll(s.name, "-", "_")] = s.value
	}
	return values, nil
}

// normalize makes - and _ alike in names, as --help prints them: with _.
func normalize(_ *pflag.FlagSet, name string) pflag.NormalizedName {
	return pflag.NormalizedName(strings.ReplaceAll(name, "-", "_"))
}

// applyFile sets the flags of fs from the settings of a file. A flag that the
// command line has set keeps its value. A list flag collects all its lines; of any
// other flag the last line wins, with a warning, as in Postfix.
func applyFile(fs *pflag.FlagSet, path string, log *slog.Logger) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	settings, err := readSettings(f)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}

	byCommandLine := map[string]bool{}
	fs.Visit(func(f *pflag.Flag) { byCommandLine[f.Name] = true })
	seen := map[string]int{}
	for _, s := range settings {
		flag := fs.Lookup(s.name)
		if flag == nil || flag.Name == "config" || flag.Name == "check" || flag.Name == "help" || flag.Name == "version" {
			return fmt.Errorf("%s: line %d: unknown setting %q", path, s.line, s.name)
		}
		if byCommandLine[flag.Name] {
			continue
		}
		_, list := flag.Value.(pflag.SliceValue)
		if before, again := seen[flag.Name]; again && !list {
			log.Warn("setting given twice, the last one wins", "file", path, "setting", flag.Name, "lines", fmt.Sprintf("%d, %d", before, s.line))
		}
		seen[flag.Name] = s.line
		if err := fs.Set(flag.Name, s.value); err != nil {
			return fmt.Errorf("%s: line %d: %w", path, s.line, errors.Unwrap(err))
		}
	}
	return nil
}
