// Package bounded reads files that an administrator wrote, and that might be something else by mistake.
package bounded

import (
	"fmt"
	"io"
	"os"
)

// ReadFile returns what a file holds, at most max octets. A larger one is an error, and so is
// what os.Open finds: all errors name the file.
func ReadFile(path string, max int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, int64(max)+1))
	switch {
	case err != nil:
		return nil, err
	case len(data) > max:
		return nil, fmt.Errorf("%s: larger than %d octets", path, max)
	}
	return data, nil
}
