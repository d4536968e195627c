package daemon

import (
	"os"
	"path/filepath"
	"strings"
)

// StateFile returns where a daemon keeps what it wants to know after a restart: the value of a
// setting; or name in $STATE_DIRECTORY where the setting is empty, systemd.exec(5); or "",
// nowhere, where there is none, or the setting is "none".
func StateFile(setting, name string) string {
	switch setting {
	case "":
	case "none":
		return ""
	default:
		return setting
	}
	// A list, for services with several directories.
	dir, _, _ := strings.Cut(os.Getenv("STATE_DIRECTORY"), ":")
	if !filepath.IsAbs(dir) {
		return ""
	}
	return filepath.Join(dir, name)
}
