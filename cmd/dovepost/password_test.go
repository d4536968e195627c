package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal opens a new pseudo terminal: the user's side and the program's side.
func terminal(t *testing.T) (user, tty *os.File) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	user = os.NewFile(uintptr(fd), "ptmx")
	t.Cleanup(func() { user.Close() })
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tty.Close() })
	user.SetDeadline(time.Now().Add(time.Minute))
	return user, tty
}

func TestThePasswordIsNotShown(t *testing.T) {
	for _, tt := range []struct {
		name, second string
		code         int
		stdout       string
	}{
		{"the same twice", "geheim", exitOK, "{PLAIN}geheim\n"},
		{"two that differ", "Geheim", exitUsage, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			user, tty := terminal(t)
			before, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
			if err != nil {
				t.Fatal(err)
			}
			var stdout strings.Builder
			done := make(chan int, 1)
			go func() { done <- run(&call{t.Context(), tty, &stdout, tty}, []string{"pw", "-s", "PLAIN"}) }()

			screen := bufio.NewReader(user)
			for i, prompt := range []string{"New password: ", "The same again: "} {
				got := make([]byte, len(prompt))
				if _, err := io.ReadFull(screen, got); err != nil || string(got) != prompt {
					t.Fatalf("screen shows %q, %v; want %q", got, err, prompt)
				}
				fmt.Fprintln(user, []string{"geheim", tt.second}[i])
				if line, err := screen.ReadString('\n'); line != "\r\n" {
					t.Fatalf("screen shows %q, %v; want the end of the line only", line, err)
				}
			}
			if code := <-done; code != tt.code || stdout.String() != tt.stdout {
				t.Errorf("%d, %q; want %d, %q", code, stdout.String(), tt.code, tt.stdout)
			}
			after, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
			if err != nil || *after != *before {
				t.Errorf("the terminal is not as before: %+v, %v", after, err)
			}
		})
	}
}
