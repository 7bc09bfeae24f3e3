package auth

import "testing"

func TestMode(t *testing.T) {
	for s, want := range map[string]uint16{
		"cdwr:--wr:---r": 0b1111_0011_0001,
		"----:----:----": 0,
		"cdwr:cdwr:cdwr": 0xfff,
		"c---:-d--:--w-": 0b1000_0100_0010,
	} {
		if got, err := ParseMode(s); err != nil || got != want {
			t.Errorf("ParseMode(%q) = %012b, %v; want %012b", s, got, err, want)
		}
	}
	for _, s := range []string{"", "cdwr", "cdwr:cdwr", "cdwr:cdwr:cdwr:cdwr", "cdwr:cdwr:cdw", "cdwr:cdwr:cdwrr",
		"dcwr:----:----", "CDWR:----:----", "x---:----:----", "755", "cdwr:--wr:---é"} {
		if got, err := ParseMode(s); err == nil {
			t.Errorf("ParseMode(%q) = %012b, want an error", s, got)
		}
	}
	for mode := range uint16(1 << 12) {
		if got, err := ParseMode(FormatMode(mode)); err != nil || got != mode {
			t.Fatalf("mode %012b is written %q and read %012b, %v", mode, FormatMode(mode), got, err)
		}
	}
}

func FuzzParseMode(f *testing.F) {
	f.Add("cdwr:--wr:---r")
	f.Add("cdwr::")
	f.Fuzz(func(t *testing.T, s string) {
		if mode, err := ParseMode(s); err == nil && FormatMode(mode) != s {
			t.Fatalf("%q is read as %q", s, FormatMode(mode))
		}
	})
}
