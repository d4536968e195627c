package main

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"dovepost/cmd/internal/bench/rounds"
	"dovepost/cmd/internal/stack"
)

// tries is how many wrong passwords are tried, half of them for users that exist.
const tries = 2000

// suspicious is the level at which two samples are taken for different: by chance
// that happens once in a thousand times.
const suspicious = 0.001

// try is one wrong password, for a user who exists or who does not.
type try struct {
	name  string
	known bool
	took  float64 // seconds
}

// alike measures how long a wrong password takes for users that exist and for those
// that do not, in no order, and asks two tests whether that tells one from the other:
// Mann and Whitney's, which sees a shift, and Kolmogorov and Smirnov's, which sees any
// difference. Once with the failure delay, and once without, which is harder.
func (b *bench) alike() error {
	const parallel = 200
	delayed := b.names()
	if err := tryWrong(socket(b.ours, "auth-client"), parallel, delayed); err != nil {
		return err
	}
	judge("wrong password, known and unknown users", delayed)

	dir := filepath.Join(b.dir, "undelayed")
	path := filepath.Join(dir, "auth-client")
	d, err := stack.StartDaemon(filepath.Join(b.bin, "authd"), dir, "client", path,
		"--sql="+filepath.Join(b.ours.Dir, "dovepost/authd/dovecot-sql.conf.ext"), "--auth_failure_delay=0s")
	if err != nil {
		return err
	}
	defer d.Stop()
	atOnce := b.names()
	if err := tryWrong(path, 1, atOnce); err != nil {
		return err
	}
	judge("  with auth_failure_delay = 0", atOnce)
	return nil
}

// names returns as many known as unknown users, in no order, that nobody has tried before.
func (b *bench) names() (all []try) {
	for range tries / 2 {
		name := box(b.boxes)
		all = append(all, try{name: name, known: true}, try{name: strings.Replace(name, "box", "nox", 1)})
		b.boxes++
	}
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

// tryWrong fills in how long each of the tries takes, so many at a time.
func tryWrong(path string, parallel int, all []try) error {
	var trying errgroup.Group
	for i := range parallel {
		c, err := dial(path, clientHello, 300_000+i)
		if err != nil {
			return err
		}
		defer c.Close()
		trying.Go(func() error {
			for n := i; n < len(all); n += parallel {
				began := time.Now()
				answer, err := c.ask(login(all[n].name, "wrong-"+all[n].name))
				all[n].took = time.Since(began).Seconds()
				if err != nil || !bytes.HasPrefix(answer, []byte("FAIL\t")) || bytes.Contains(answer, []byte("code=")) {
					return fmt.Errorf("a wrong password: %q, %v", answer, err)
				}
			}
			return nil
		})
	}
	return trying.Wait()
}

// judge prints what the tests say.
func judge(what string, all []try) {
	var known, unknown []float64
	for _, t := range all {
		if t.known {
			known = append(known, t.took)
		} else {
			unknown = append(unknown, t.took)
		}
	}
	shift, any := mannWhitney(all), kolmogorovSmirnov(known, unknown)
	p := min(shift, any)
	rounds.Line(what, milliseconds(known), milliseconds(unknown), fmt.Sprintf("p=%.3f", p), fmt.Sprintf("> %.3f", suspicious), p > suspicious)
}

func milliseconds(took []float64) string { return fmt.Sprintf("%.3f ms", rounds.Median(took)*1e3) }

// mannWhitney returns the probability that two samples of one distribution differ at
// least as much in their ranks. Normal approximation; equal times are rare.
func mannWhitney(all []try) float64 {
	sorted := slices.Clone(all)
	slices.SortFunc(sorted, func(a, b try) int { return cmp.Compare(a.took, b.took) })
	var n1, n2, ranks float64
	for i, t := range sorted {
		if t.known {
			n1++
			ranks += float64(i + 1)
		} else {
			n2++
		}
	}
	u := ranks - n1*(n1+1)/2
	z := (u - n1*n2/2) / math.Sqrt(n1*n2*(n1+n2+1)/12)
	return math.Erfc(math.Abs(z) / math.Sqrt2)
}

// kolmogorovSmirnov returns the probability that the distribution functions of two
// samples of one distribution are at least as far apart. Asymptotic.
func kolmogorovSmirnov(a, b []float64) float64 {
	a, b = slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	var i, j int
	var d float64
	for i < len(a) && j < len(b) {
		x := min(a[i], b[j])
		for i < len(a) && a[i] <= x {
			i++
		}
		for j < len(b) && b[j] <= x {
			j++
		}
		d = max(d, math.Abs(float64(i)/float64(len(a))-float64(j)/float64(len(b))))
	}
	n := math.Sqrt(float64(len(a)*len(b)) / float64(len(a)+len(b)))
	lambda := (n + 0.12 + 0.11/n) * d
	p, sign := 0.0, 2.0
	for k := 1.0; k <= 100; k++ {
		p += sign * math.Exp(-2*k*k*lambda*lambda)
		sign = -sign
	}
	return min(max(p, 0), 1)
}
