package stack

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// Usage is the processor time that a part of the stack has used since it started,
// with the children it has reaped.
type Usage map[string]time.Duration

// Total sums up.
func (u Usage) Total() (sum time.Duration) {
	for _, d := range u {
		sum += d
	}
	return sum
}

// Sub returns what was used since before.
func (u Usage) Sub(before Usage) Usage {
	diff := Usage{}
	for name, d := range u {
		diff[name] = d - before[name]
	}
	return diff
}

// CPU returns the processor time of each part, the foreign server left out.
func (s *Stack) CPU() (Usage, error) {
	all, err := processes()
	if err != nil {
		return nil, err
	}
	roots := map[string]int{"postfix": s.Postfix.proc.pid, "dovecot": s.dovecot.pid, "mariadb": s.DB.proc.pid}
	for name, u := range s.units {
		roots[name] = u.current().pid
	}
	usage := Usage{}
	for name, pid := range roots {
		if all[pid] == nil {
			return nil, fmt.Errorf("%s: process %d is not there", name, pid)
		}
		usage[name] = all[pid].tree(all)
	}
	return usage, nil
}

// PeakMemory returns the most memory that a daemon has had resident since it started, in octets.
func (s *Stack) PeakMemory(name string) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.units[name].current().pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := bytes.Cut(status, []byte("VmHWM:"))
	var kib int64
	if _, err := fmt.Sscan(string(rest), &kib); err != nil {
		return 0, fmt.Errorf("%s: VmHWM: %w", name, err)
	}
	return kib << 10, nil
}

// stat is what /proc/PID/stat says of a process.
type stat struct {
	parent   int
	cpu      time.Duration // of the process and of all children that it has reaped
	children []int
}

func (p *stat) tree(all map[int]*stat) time.Duration {
	sum := p.cpu
	for _, child := range p.children {
		sum += all[child].tree(all)
	}
	return sum
}

// processes reads the process table.
func processes() (map[int]*stat, error) {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	all := map[int]*stat{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has just ended
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil {
			return nil, err
		}
		if all[pid], err = parseStat(text); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
	}
	for pid, p := range all {
		if parent := all[p.parent]; parent != nil {
			parent.children = append(parent.children, pid)
		}
	}
	return all, nil
}

// parseStat reads a line of proc(5) stat: fields 4 (ppid) and 14 to 17 (utime,
// stime, cutime, cstime) in ticks of 10 ms. The name in field 2 may hold anything.
func parseStat(text []byte) (*stat, error) {
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) < 15 {
		return nil, fmt.Errorf("%d fields", len(fields))
	}
	parent, err := strconv.Atoi(string(fields[1]))
	if err != nil {
		return nil, err
	}
	p := &stat{parent: parent}
	for _, field := range fields[11:15] {
		ticks, err := strconv.ParseInt(string(field), 10, 64)
		if err != nil {
			return nil, err
		}
		p.cpu += time.Duration(ticks) * 10 * time.Millisecond
	}
	return p, nil
}
