package lookup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sync/errgroup"

	"dovepost/lookup"
	"dovepost/lookup/socketmap"
)

// An answer is "= value", "no" or "error".
const (
	answerNo    = "no"
	answerError = "error"
)

// postmap is native Postfix, asked through postmap.
type postmap struct {
	t   *testing.T
	dir string // config_directory
	// slots bounds the processes: each has a connection to the database, and sleeps for a second
	// after an error.
	slots chan struct{}

	mu sync.Mutex // guards what follows
	// runs and failed count the processes that were needed.
	runs, failed int
}

func newPostmap(t *testing.T) *postmap {
	dir := newDir(t, "postmap")
	must(t, os.WriteFile(filepath.Join(dir, "main.cf"), []byte("compatibility_level = 3.6\n"), 0o644))
	return &postmap{t: t, dir: dir, slots: make(chan struct{}, 64)}
}

// run asks table for key, or for the keys in stdin if key is "-".
func (p *postmap) run(key, table, stdin string) (out string, failed bool, err error) {
	p.slots <- struct{}{}
	defer func() { <-p.slots }()
	cmd := exec.Command("/usr/sbin/postmap", "-c", p.dir, "-q", key, table)
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	var exit *exec.ExitError
	failed = strings.Contains(stderr.String(), "query error")
	switch {
	case err != nil && !errors.As(err, &exit): // no postmap
		return "", false, err
	case !failed && strings.Contains(stderr.String(), "fatal:"), err != nil && exit.ExitCode() != 1:
		return "", false, fmt.Errorf("postmap -q %.50q %s: %s", key, table, stderr.String())
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.runs++
	if failed {
		p.failed++
	}
	return stdout.String(), failed, nil
}

// one asks for one key.
func (p *postmap) one(table, key string) (string, error) {
	out, failed, err := p.run(key, table, "")
	switch {
	case err != nil:
		return "", err
	case failed:
		return answerError, nil
	case out == "":
		return answerNo, nil
	}
	return "= " + strings.TrimSuffix(out, "\n"), nil
}

// all asks for all keys. An error ends postmap, and it does not say at which key;
// what suspect holds is therefore asked on its own, and the rest at once, as far as
// no error is met. So the answers are exact whatever suspect holds, and soon
// there if it holds what errors come from.
func (p *postmap) all(table string, keys []string, suspect map[string]bool) (map[string]string, error) {
	answers := make(map[string]string, len(keys))
	var alone []string
	batches := make([][]string, 2)
	for _, key := range keys {
		switch {
		// postmap prints key, tab, value: keys with and without a tab apart, that is unambiguous.
		case key == "" || strings.Contains(key, "\n") || suspect[key] || strings.Count(key, "\t") > 1:
			alone = append(alone, key)
		case strings.Contains(key, "\t"):
			batches[1] = append(batches[1], key)
		default:
			batches[0] = append(batches[0], key)
		}
	}
	for _, batch := range batches {
		if err := p.batch(table, batch, answers); err != nil {
			return nil, err
		}
	}
	var mu sync.Mutex
	var g errgroup.Group
	g.SetLimit(cap(p.slots))
	for _, key := range alone {
		g.Go(func() error {
			answer, err := p.one(table, key)
			mu.Lock()
			defer mu.Unlock()
			answers[key] = answer
			return err
		})
	}
	return answers, g.Wait()
}

// batch asks for keys at once, by halves if that fails.
func (p *postmap) batch(table string, keys []string, answers map[string]string) error {
	if len(keys) == 0 {
		return nil
	}
	out, failed, err := p.run("-", table, strings.Join(keys, "\n")+"\n")
	if err != nil {
		return err
	}
	if failed && len(keys) > 1 {
		half := len(keys) / 2
		return errors.Join(p.batch(table, keys[:half], answers), p.batch(table, keys[half:], answers))
	}
	if failed {
		answers[keys[0]] = answerError
		return nil
	}
	lines := splitLines(out)
	for _, key := range keys {
		answers[key] = answerNo
		if len(lines) > 0 {
			if value, ok := strings.CutPrefix(lines[0], key+"\t"); ok {
				answers[key] = "= " + value
				lines = lines[1:]
			}
		}
	}
	if len(lines) > 0 { // a value with a line feed
		if len(keys) == 1 {
			answers[keys[0]] = "= " + strings.TrimSuffix(out[len(keys[0])+1:], "\n")
			return nil
		}
		half := len(keys) / 2
		return errors.Join(p.batch(table, keys[:half], answers), p.batch(table, keys[half:], answers))
	}
	return nil
}

// asker asks lookupd over some connections.
type asker struct {
	clients []*socketmap.Client
}

func dial(t testing.TB, path string, connections int) *asker {
	t.Helper()
	a := &asker{}
	for range connections {
		c, err := socketmap.Dial(context.Background(), "unix", path)
		must(t, err)
		t.Cleanup(func() { c.Close() })
		a.clients = append(a.clients, c)
	}
	return a
}

// all asks a map for all keys.
func (a *asker) all(name string, keys []string) (map[string]string, error) {
	answers := make(map[string]string, len(keys))
	var mu sync.Mutex
	var g errgroup.Group
	for part := range slices.Chunk(keys, (len(keys)+len(a.clients)-1)/len(a.clients)) {
		c := a.clients[0]
		a.clients = append(a.clients[1:], c)
		g.Go(func() error {
			for _, key := range part {
				answer, err := ask(c, name, key)
				if err != nil {
					return fmt.Errorf("%s %.50q: %w", name, key, err)
				}
				mu.Lock()
				answers[key] = answer
				mu.Unlock()
			}
			return nil
		})
	}
	return answers, g.Wait()
}

// ask asks for one key. An error is one of the connection.
func ask(c *socketmap.Client, name, key string) (string, error) {
	value, err := c.Lookup(context.Background(), name, key)
	var reply *socketmap.ReplyError
	switch {
	case err == nil:
		return "= " + value, nil
	case errors.Is(err, lookup.ErrNotFound):
		return answerNo, nil
	case errors.As(err, &reply):
		return answerError, nil
	}
	return "", err
}

// same compares answers; the order of rows means nothing.
func same(a, b string) bool {
	if a == b {
		return true
	}
	if !strings.HasPrefix(a, "= ") || !strings.HasPrefix(b, "= ") {
		return false
	}
	x, y := strings.Split(a[2:], ","), strings.Split(b[2:], ",")
	slices.Sort(x)
	slices.Sort(y)
	return slices.Equal(x, y)
}

// quoted is for what stands in an error message.
func quoted(s string) string {
	if len(s) > 120 {
		return fmt.Sprintf("%.120q... (%d octets)", s, len(s))
	}
	return fmt.Sprintf("%q", s)
}
