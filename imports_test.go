package main

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "kvs"

// mayImport says which packages of this module each top-level directory may
// import, test files aside. A trailing /... means the package and all below it.
// Packages below one top-level directory may import each other, but for
// features.
var mayImport = map[string][]string{
	".":        {"cli", "server", "config"},
	"cli":      {"client", "config", "auth", "server", "types", "utils/..."},
	"server":   {"auth", "cluster/...", "config", "features/...", "storage/...", "types", "utils/..."},
	"client":   {"types"},
	"cluster":  {"types", "utils/...", "storage/codec", "storage/feed", "storage/merkle"},
	"auth":     {"types", "utils/..."},
	"storage":  {"types", "utils/..."},
	"features": {"features", "storage/...", "types", "utils/..."},
	"config":   {"auth", "utils/..."},
	"utils":    {},
	"types":    {},
	"bench":    {"client", "cli", "server", "config", "cluster/...", "storage/...", "types", "utils/..."},
}

// onlyIn names the one top-level directory that may import a library.
var onlyIn = map[string]string{
	"github.com/dgraph-io/badger":     "storage",
	"github.com/hashicorp/memberlist": "cluster",
}

func TestImportDirections(t *testing.T) {
	checked := 0
	err := filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") && file != ".") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return nil
		}
		dir := path.Dir(filepath.ToSlash(file))
		top, _, _ := strings.Cut(dir, "/")
		if _, ok := mayImport[top]; !ok {
			t.Errorf("%s: the directory %s is not in the table of imports", file, top)
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, imp := range f.Imports {
			name, err := strconv.Unquote(imp.Path.Value)
			if err != nil {
				return err
			}
			if checked++; !importAllowed(top, dir, name) {
				t.Errorf("%s imports %s", file, name)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if checked == 0 {
		t.Error("no import was looked at")
	}
	if files, err := filepath.Glob("utils/*.go"); err != nil || len(files) > 0 {
		t.Errorf("utils holds Go files at its root: %v, %v", files, err)
	}
}

func importAllowed(top, dir, name string) bool {
	for library, only := range onlyIn {
		if strings.HasPrefix(name, library) {
			return top == only
		}
	}
	name, ours := strings.CutPrefix(name, module+"/")
	if !ours {
		return true
	}
	importedTop, _, _ := strings.Cut(name, "/")
	if importedTop == top {
		// Features plug into contracts and never know each other.
		return top != "features" || name == "features" || strings.HasPrefix(name+"/", dir+"/")
	}
	for _, allowed := range mayImport[top] {
		if below, ok := strings.CutSuffix(allowed, "/..."); ok {
			if name == below || strings.HasPrefix(name, below+"/") {
				return true
			}
		} else if name == allowed {
			return true
		}
	}
	return false
}

// The table is checked against the tree: a directory that is gone does not
// keep its permissions.
func TestImportTableIsCurrent(t *testing.T) {
	for dir := range mayImport {
		if _, err := os.Stat(dir); err != nil {
			t.Errorf("the table of imports names %s: %v", dir, err)
		}
	}
}
