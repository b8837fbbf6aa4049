// Checks an exported ledger with Go's own transparency log: the note, every entry's proof, and that it goes on from each of its sizes.
package main

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// folder reads tiles where C2SP tlog-tiles has them.
type folder string

func (f folder) Height() int { return 8 }

func (f folder) SaveTiles([]tlog.Tile, [][]byte) {}

func (f folder) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, tile := range tiles {
		data, err := os.ReadFile(filepath.Join(string(f), path(strconv.Itoa(tile.L), tile.N, tile.W)))
		if err != nil {
			return nil, err
		}
		all = append(all, data)
	}
	return all, nil
}

func path(level string, number int64, width int) string {
	text := fmt.Sprintf("%03d", number%1000)
	for number >= 1000 {
		number /= 1000
		text = fmt.Sprintf("x%03d/%s", number%1000, text)
	}
	if width < 256 {
		text += fmt.Sprintf(".p/%d", width)
	}
	return "tile/" + level + "/" + text
}

func check(root, key string) (int64, error) {
	signed, err := os.ReadFile(filepath.Join(root, "checkpoint"))
	if err != nil {
		return 0, err
	}
	verifier, err := note.NewVerifier(key)
	if err != nil {
		return 0, err
	}
	opened, err := note.Open(signed, note.VerifierList(verifier))
	if err != nil {
		return 0, err
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) != 4 || lines[0] != verifier.Name() {
		return 0, fmt.Errorf("not a checkpoint of %s: %q", verifier.Name(), opened.Text)
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return 0, err
	}
	raw, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || len(raw) != tlog.HashSize {
		return 0, fmt.Errorf("root %q: %v", lines[2], err)
	}
	tree := tlog.Tree{N: size, Hash: tlog.Hash(raw)}
	reader := tlog.TileHashReader(tree, folder(root))
	var rest []byte
	for index := int64(0); index < size; index++ {
		if index%256 == 0 {
			width := min(size-index, 256)
			if rest, err = os.ReadFile(filepath.Join(root, path("entries", index/256, int(width)))); err != nil {
				return 0, err
			}
		}
		length := int(binary.BigEndian.Uint16(rest))
		entry := rest[2 : 2+length]
		rest = rest[2+length:]
		proof, err := tlog.ProveRecord(size, index, reader)
		if err != nil {
			return 0, err
		}
		if err := tlog.CheckRecord(proof, size, tree.Hash, index, tlog.RecordHash(entry)); err != nil {
			return 0, fmt.Errorf("entry %d: %w", index, err)
		}
		before, err := tlog.TreeHash(index+1, reader)
		if err != nil {
			return 0, err
		}
		grown, err := tlog.ProveTree(size, index+1, reader)
		if err != nil {
			return 0, err
		}
		if err := tlog.CheckTree(grown, size, tree.Hash, index+1, before); err != nil {
			return 0, fmt.Errorf("from %d: %w", index+1, err)
		}
	}
	return size, nil
}

func main() {
	size, err := check(os.Args[1], os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(size)
}
