package sandbox

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"syscall"
)

// errSystem: servers are stopped by signals, which this system does not have.
var errSystem = errors.New("servers can't be embedded on Windows: use a Kafka and a PostgreSQL of your own, or WSL")

type account struct{ Uid, Gid uint32 }

func serverAccount() (*account, error)         { return nil, errSystem }
func runAs(*exec.Cmd, *account)                {}
func isOurs(fs.FileInfo) bool                  { return true }
func tryLock(*os.File) (bool, error)           { return false, errSystem }
func setDeathSignal(*exec.Cmd, syscall.Signal) {}
