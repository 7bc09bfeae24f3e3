package auth

import (
	"fmt"
	"strings"
)

// modeLetters are the rights within one class, from the highest bit: create,
// delete, write, read. The classes are owner, group, others, the owner's bits
// being the highest of the twelve.
const modeLetters = "cdwr"

const modeBits = 3 * len(modeLetters)

// ParseMode reads permissions written as owner:group:others, each the letters
// cdwr with a dash for a right that is not given: "cdwr:--wr:---r".
func ParseMode(s string) (uint16, error) {
	var mode uint16
	classes := strings.Split(s, ":")
	ok := len(classes) == 3
	for _, class := range classes {
		ok = ok && len(class) == len(modeLetters)
		for i := 0; ok && i < len(class); i++ {
			mode <<= 1
			switch class[i] {
			case modeLetters[i]:
				mode |= 1
			case '-':
			default:
				ok = false
			}
		}
	}
	if !ok {
		return 0, fmt.Errorf(`%q is not a mode: write owner, group and others like "cdwr:--wr:---r"`, s)
	}
	return mode, nil
}

// FormatMode writes permissions as ParseMode reads them. Bits above the twelve
// are ignored.
func FormatMode(mode uint16) string {
	b := make([]byte, 0, modeBits+2)
	for i := range modeBits {
		if i > 0 && i%len(modeLetters) == 0 {
			b = append(b, ':')
		}
		if mode>>(modeBits-1-i)&1 != 0 {
			b = append(b, modeLetters[i%len(modeLetters)])
		} else {
			b = append(b, '-')
		}
	}
	return string(b)
}
