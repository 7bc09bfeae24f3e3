package auth

import "kvs/types"

// Right is something that an item's mode lets somebody do with it. The values
// are the bits of one class of a mode.
type Right uint16

// The rights.
const (
	RightRead Right = 1 << iota
	RightWrite
	RightDelete
	RightCreate // below the item: asked of the nearest ancestor of a new key
)

const allRights = RightRead | RightWrite | RightDelete | RightCreate

// Owners, and subjects of requests, that are no user's UUID.
const (
	Root      = "root"      // who holds the secret; also the group of what root made
	Anonymous = "anonymous" // whoever comes without a token, where that is allowed
)

// rightsOf gives what m lets a subject in groups do. As in POSIX one class
// decides alone, the first that fits: owner, group, others. Whoever is the owner
// has no more rights than the owner's, even if others have.
func rightsOf(m *types.Meta, subject string, groups []string) Right {
	const classBits = len(modeLetters)
	class := 0 // others
	switch {
	case m.Owner == subject:
		class = 2
	case inGroup(m.Group, subject, groups):
		class = 1
	}
	return Right(m.Mode>>(class*classBits)) & allRights
}

func inGroup(group, subject string, groups []string) bool {
	if group == Root {
		return subject == Root
	}
	for _, g := range groups { // few; sorting pays only far above that
		if g == group {
			return true
		}
	}
	return false
}
