package cli

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// The commands that make one call, or a few: what they send and print.
func TestCommandsOnANode(t *testing.T) {
	writeFile(t, away(t), testSecret+"\n")
	const (
		ada   = `{"uuid":"u1","nickname":"Ada","created":1700000000000,"groups":["g1"]}`
		staff = `{"uuid":"g1","nickname":"staff","created":1700000000000,"members":["u1","u2"]}`
		stat  = `{"uuid":"v","timestamp":1700000000000,"owner":"u1","group":"g1","mode":"cdwr:--wr:---r","ttl":"0","size":1,"origin":"n"}`
	)
	n := newAnswering(t, map[string]string{
		"POST /auth/users":                   `{"uuid":"u1"}`,
		"GET /auth/users":                    `{"users":[` + ada + `]}`,
		"GET /auth/users/Ada":                ada,
		"DELETE /auth/users/Ada":             "",
		"POST /auth/groups":                  `{"uuid":"g1"}`,
		"GET /auth/groups":                   `{"groups":[` + staff + `]}`,
		"GET /auth/groups/staff":             staff,
		"DELETE /auth/groups/staff":          "",
		"PUT /auth/groups/staff/members/Ada": "", "DELETE /auth/groups/staff/members/Ada": "",
		"GET /auth/me":  `{"subject":"u1","nickname":"Ada","groups":["g1"],"scopes":["read","write:a/"],"jti":"j1","expires_at":0}`,
		"GET /kv/a/b":   stat,
		"GET /kv/bytes": `{"uuid":"v","timestamp":1700000000000,"owner":"root","group":"root","mode":"cdwr:----:----","ttl":"1s","expires_at":1700000001000,"size":20,"content_type":"image/png","origin":"n"}`,
		"PUT /kv/a/b":   `{"uuid":"w","timestamp":1700000000001}`,
	})
	user := newUser
	for _, tt := range []struct {
		command func() *cobra.Command
		args    string
		sent    string
		want    string // the whole output if it ends in a line break, else a part of it
	}{
		{user, "add Ada", `POST /auth/users {"nickname":"Ada"}`, "u1\n"},
		{user, "add Ada -o json", `POST /auth/users {"nickname":"Ada"}`, `{"uuid":"u1"}` + "\n"},
		{user, "ls", "GET /auth/users", "UUID  NICKNAME  CREATED                  GROUPS\nu1    Ada "},
		{user, "ls -o json", "GET /auth/users", "[" + ada + "]\n"},
		{user, "show Ada", "GET /auth/users/Ada | GET /auth/groups", "group     g1 (staff)"},
		{user, "show Ada -o json", "GET /auth/users/Ada", ada + "\n"},
		{user, "rm Ada", "DELETE /auth/users/Ada", "deleted Ada\n"},
		{newGroup, "add staff", `POST /auth/groups {"nickname":"staff"}`, "g1\n"},
		{newGroup, "ls", "GET /auth/groups", "MEMBERS\ng1    staff     "},
		{newGroup, "ls -o json", "GET /auth/groups", "[" + staff + "]\n"},
		{newGroup, "show staff", "GET /auth/groups/staff | GET /auth/users", "member    u1 (Ada)\nmember    u2\n"},
		{newGroup, "show staff -o json", "GET /auth/groups/staff", staff + "\n"},
		{newGroup, "rm staff -o json", "DELETE /auth/groups/staff", `{"deleted":"staff"}` + "\n"},
		{newGroup, "join staff Ada", "PUT /auth/groups/staff/members/Ada", "Ada joined staff\n"},
		{newGroup, "leave staff Ada", "DELETE /auth/groups/staff/members/Ada", "Ada left staff\n"},
		{newGroup, "leave staff Ada -o json", "DELETE /auth/groups/staff/members/Ada", `{"left":"staff","user":"Ada"}` + "\n"},
		{newWhoami, "", "GET /auth/me", "subject   u1\nnickname  Ada\ngroup     g1\nscopes    read,write:a/\ntoken     j1\nexpires   never\n"},
		{newWhoami, "-o json", "GET /auth/me", `"scopes":["read","write:a/"]`},
		{newStat, "a/b", "GET /kv/a/b?metadata=", "type     JSON"},
		{newStat, "bytes", "GET /kv/bytes?metadata=", "size     20 bytes\ntype     image/png"},
		{newStat, "a/b -o json", "GET /kv/a/b?metadata=", stat + "\n"},
		{newChmod, "cdwr:----:---- a/b", `PUT /kv/a/b?metadata= {"mode":"cdwr:----:----"}`, "a/b: cdwr:----:---- (version w)\n"},
		{newChmod, "--w 2 -- ----:----:---- a/b", `PUT /kv/a/b?metadata=&w=2 {"mode":"----:----:----"}`, "a/b: ----:----:---- (version w)\n"},
		{newChown, "Ada a/b", `PUT /kv/a/b?metadata= {"owner":"Ada"}`, "a/b: Ada (version w)\n"},
		{newChown, "Ada:staff a/b", `PUT /kv/a/b?metadata= {"group":"staff","owner":"Ada"}`, "a/b: Ada:staff (version w)\n"},
		{newChown, ":staff a/b", `PUT /kv/a/b?metadata= {"group":"staff"}`, "a/b: :staff (version w)\n"},
	} {
		cmd := tt.command()
		t.Run(cmd.Name()+" "+tt.args, func(t *testing.T) {
			r := runCommand(t, cmd, "", strings.Fields(tt.args)...)
			if r.code != exitOK || r.stderr != "" {
				t.Errorf("%+v", r)
			}
			if whole := strings.HasSuffix(tt.want, "\n"); whole && !strings.HasSuffix(r.stdout, tt.want) ||
				whole && !strings.Contains(tt.args, "show") && r.stdout != tt.want || !strings.Contains(r.stdout, tt.want) {
				t.Errorf("printed %s\nwant %s", r.stdout, tt.want)
			}
			if sent := n.sent(); sent != tt.sent {
				t.Errorf("sent %s\nwant %s", sent, tt.sent)
			}
		})
	}
	for _, tt := range []struct {
		command func() *cobra.Command
		args    string
		code    int
		sent    bool
	}{
		{user, "show Bob", exitNotFound, true},
		{user, "rm Bob", exitNotFound, true},
		{newGroup, "join staff Bob", exitNotFound, true},
		{newGroup, "join staff", exitUsage, false},
		{user, "show ..", exitFailed, false},
		{newStat, "none", exitNotFound, true},
		{newStat, "_range", exitFailed, false},
		{newChmod, "777 a/b", exitUsage, false},
		{newChown, ": a/b", exitUsage, false},
		{newChown, "Ada: a/b", exitUsage, false},
		{newWhoami, "x", exitUsage, false},
	} {
		cmd := tt.command()
		r := runCommand(t, cmd, "", strings.Fields(tt.args)...)
		if r.code != tt.code || r.stdout != "" || r.stderr == "" {
			t.Errorf("%s %s: %+v", cmd.Name(), tt.args, r)
		}
		if sent := n.sent(); (sent != "") != tt.sent {
			t.Errorf("%s %s: sent %q", cmd.Name(), tt.args, sent)
		}
	}
}
