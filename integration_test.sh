#!/usr/bin/env bash
# Real node processes on loopback: forming, replication, conflicts, stolen
# identities, kill -9 under load, catch-up, wrong secrets, full disks, bit rot,
# tokens and permissions, TLS, the tamper log, a change of the secret.
# Needs bash, curl and go (or a binary named in KVS). Takes about two minutes.
#
#   ./integration_test.sh              everything
#   ./integration_test.sh crash join   the tests whose names are given
set -u
cd "$(dirname "$0")" || exit 1

work=$(mktemp -d "${TMPDIR:-/tmp}/kvs-integration-XXXXXX")
pids=()
cleanup() {
	for pid in "${pids[@]}"; do kill -9 "$pid" 2>/dev/null; done
	wait 2>/dev/null
	rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

KVS=${KVS:-}
if [ -z "$KVS" ]; then
	KVS=$work/kvs
	go build -o "$KVS" . || exit 1
fi
KVS=$(realpath "$KVS")
secret=0123456789abcdef0123456789abcdef
export KVS_CLUSTER_SECRET=$secret
unset KVS_URL KVS_TOKEN

TOKEN=$("$KVS" token create --scope admin) || exit 1

# --- helpers -----------------------------------------------------------------

# curl shows the token with every request; stranger shows none.
curl() { command curl -H "Authorization: Bearer $TOKEN" "$@"; }
stranger() { command curl "$@"; }

passed=0 failed=0 current=
declare -A port pid

say() { printf '%s\n' "$*"; }

# check DESCRIPTION COMMAND...: the command must succeed.
check() {
	local what=$1
	shift
	if "$@"; then
		passed=$((passed + 1))
		say "  ok    $what"
	else
		failed=$((failed + 1))
		say "  FAIL  $what   ($*)"
		for log in "$work/$current"-*.log; do
			[ -f "$log" ] && { say "  --- ${log##*/}"; tail -n 15 "$log"; }
		done
	fi
}

# within SECONDS COMMAND...: polls until the command succeeds.
within() {
	local end=$((SECONDS + $1))
	shift
	until "$@" >/dev/null 2>&1; do
		[ $SECONDS -ge $end ] && return 1
		sleep 0.1
	done
}

free_port() {
	local p
	while :; do
		p=$((20000 + RANDOM % 12000))
		(exec 3<>"/dev/tcp/127.0.0.1/$p") 2>/dev/null || { echo $p; return; }
	done
}

# configure NAME "SEED NAMES" [YAML LINE...]
configure() {
	local name=$1 list="" s
	for s in $2; do list="$list\"127.0.0.1:${port[$s]}\","; done
	shift 2
	: "${port[$name]:=$(free_port)}"
	{
		echo "node_id: $current-$name"
		echo "port: ${port[$name]}"
		echo "data_dir: $work/$current-$name"
		echo "seed_nodes: [${list%,}]"
		echo "gossip_interval_min: 1"
		echo "gossip_interval_max: 2"
		echo "sync_interval: 5"
		echo "catchup_interval: 2"
		echo "min_free_disk_mb: 64"
		echo "backup_path: $work/$current-$name-backups"
		echo "log_level: info"
		for s in "$@"; do echo "$s"; done
	} >"$work/$current-$name.yaml"
}

start() {
	"$KVS" "$work/$current-$1.yaml" >>"$work/$current-$1.log" 2>&1 &
	pid[$1]=$!
	pids+=($!)
	disown
}

serves() { curl -fs -o /dev/null "$(url "$1")/health"; }
scheme=http
url() { echo "$scheme://127.0.0.1:${port[$1]}"; }
up() { # NAME...: start and wait
	local n
	for n in "$@"; do start "$n"; done
	for n in "$@"; do within 15 serves "$n" || return 1; done
}
gone() { ! kill -0 "${pid[$1]}" 2>/dev/null; }
stop() { kill -TERM "${pid[$1]}" && within 15 gone "$1"; }
kill9() { kill -9 "${pid[$1]}" && within 5 gone "$1"; }
freeze() { kill -STOP "${pid[$1]}"; }
thaw() { kill -CONT "${pid[$1]}"; }

# put NAME KEY JSON [QUERY]; get NAME KEY gives the value itself
put() { curl -fs -o /dev/null -X PUT -H 'Content-Type: application/json' --data-binary "$3" "$(url "$1")/kv/$2${4:-}"; }
get() { curl -fs "$(url "$1")/kv/$2?raw"; }
has() { [ "$(get "$1" "$2")" = "$3" ]; }
lacks() { [ "$(status "$1" "/kv/$2")" = 404 ]; }
status() { # NAME PATH [CURL ARGUMENT...]
	local n=$1 p=$2
	shift 2
	curl -s -o /dev/null -w '%{http_code}' --path-as-is "$@" "$(url "$n")$p"
}
is_status() { # EXPECTED NAME PATH [CURL ARGUMENT...]
	local want=$1
	shift
	[ "$(status "$@")" = "$want" ]
}
answers() { # PATTERN NAME PATH [CURL ARGUMENT...]: the body matches
	local pattern=$1 n=$2 p=$3
	shift 3
	curl -s --path-as-is "$@" "$(url "$n")$p" | grep -Eq -- "$pattern"
}
members() { [ "$(curl -fs "$(url "$1")/health" | sed 's/.*"member_count":\([0-9]*\).*/\1/')" = "$2" ]; }
root() { curl -fs "$(url "$1")/sync/merkle/root" | sed 's/.*"root":"\([0-9a-f]*\)".*/\1/'; }
same_root() { # NAME...
	local first n
	first=$(root "$1")
	[ -n "$first" ] || return 1
	for n in "$@"; do [ "$(root "$n")" = "$first" ] || return 1; done
}
conflict_with() { answers "\"data\":$3" "$1" "/kv/_conflicts?prefix=$2"; }
logged() { grep -Eq -- "$2" "$work/$current-$1.log"; }
exits_with() { # STATUS NAME: the process ends by itself with that status
	within 15 gone "$2" || return 1
	[ "$(cat "$work/$current-$2.status")" = "$1" ]
}
# start_recording is start, and keeps the exit status in a file.
start_recording() {
	( "$KVS" "$work/$current-$1.yaml" >>"$work/$current-$1.log" 2>&1; echo $? >"$work/$current-$1.status" ) &
	pid[$1]=$!
	pids+=($!)
	disown
}
trio() { # starts a, b and c
	configure a "" "$@"
	configure b "a" "$@"
	configure c "a b" "$@"
	up a b c && within 10 members a 3 && within 10 members b 3 && within 10 members c 3
}

# --- tests -------------------------------------------------------------------

test_form() {
	check "three nodes form a cluster" trio
	check "/members/ names all three as alive" answers '"id":"form-a".*"state":"alive".*"state":"alive".*"state":"alive"' a /members/
	check "a write is taken" put a docs/1 '{"n":1.00,"big":12345678901234567890}'
	check "and read on the second node, byte for byte" within 5 has b docs/1 '{"n":1.00,"big":12345678901234567890}'
	check "and on the third" within 5 has c docs/1 '{"n":1.00,"big":12345678901234567890}'
	check "w=all is answered by all" answers '"replicas":3' b '/kv/docs/2?w=all' -X PUT -d '"x"'
	check "a delete reaches the others" is_status 204 c /kv/docs/1 -X DELETE
	check "(a)" within 5 lacks a docs/1
	check "(b)" within 5 lacks b docs/1
	check "all Merkle roots are equal" within 10 same_root a b c
	check "metrics are there" answers '^kvs_' a /metrics
	start_recording_check
}

# SIGTERM ends a node with status 0, and the others see it leave.
start_recording_check() {
	configure d "a"
	start_recording d
	check "a fourth node joins" within 10 members a 4
	pkill -TERM -f "$work/$current-d.yaml"
	check "SIGTERM ends it with status 0" exits_with 0 d
	check "and the others know at once" within 3 members a 3
}

test_http() {
	configure a "" "max_json_size: 1000"
	check "a node starts" up a
	local key
	for key in 'a//b' 'a/../b' 'a/%2e%2e/b' 'a/./b' '/a' 'a/' 'a%00b' 'a%0ab' '%ff' '_mine/x'; do
		check "key $key is refused" answers '"code":"invalid_key"' a "/kv/$key" -X PUT -d 1
	done
	check "a key of 1,024 bytes is taken" is_status 201 a "/kv/$(printf '%01024d' 0)" -X PUT -d 1
	check "one of 1,025 is not" is_status 400 a "/kv/$(printf '%01025d' 0)" -X PUT -d 1
	check "a value above max_json_size gets 413" is_status 413 a /kv/big -X PUT -d "\"$(printf '%01000d' 0)\""
	check "wrong JSON gets 400" is_status 400 a /kv/json -X PUT -H 'Content-Type: application/json' -d '{"a":'
	check "an unknown path is a problem document" answers '"status":404' a /nothing
	check "a wrong method too" answers '"code":"method_not_allowed"' a /health -X POST
	check "sync calls need a node token" is_status 401 a /sync/push -X POST -d x
	check "the Merkle root does not" answers '"horizon":0' a /sync/merkle/root
	printf 'prot: 1\n' >"$work/typo.yaml"
	check "an unknown key is refused by name" not_accepted "$work/typo.yaml" prot
	check "a missing file is refused by name" not_accepted "$work/none.yaml" none.yaml
}
not_accepted() { ! "$KVS" "$1" >"$work/refused" 2>&1 && grep -q "$2" "$work/refused"; }

# Two nodes that never met write the same key; then they meet.
test_conflict() {
	configure a ""
	configure b ""
	check "two nodes start that do not know each other" up a b
	put a k '"from a"'
	sleep 0.05
	put b k '"from b"'
	put a only-a 1
	put b only-b 2
	check "the first holds its own value" has a k '"from a"'
	check "the second ends" stop b
	configure b "a"
	check "and starts again with a seed" up b
	check "they meet" within 10 members a 2
	check "the later write wins on the first" within 15 has a k '"from b"'
	check "and on the second" within 15 has b k '"from b"'
	check "the loser is listed on the first" within 15 conflict_with a k '"from a"'
	check "and on the second" within 15 conflict_with b k '"from a"'
	check "what only one had, both have (1)" within 15 has b only-a 1
	check "(2)" within 15 has a only-b 2
	check "the history shows the conflict" answers '"conflict":true' a '/kv/k?revisions'
	local id
	id=$(curl -fs "$(url a)/kv/_conflicts" | sed 's/.*"uuid":"\([^"]*\)".*/\1/')
	check "settling it answers 204" is_status 204 a "/kv/_conflicts/$id" -X DELETE
	check "and takes it off the list everywhere" within 15 answers '"items":\[\]' b /kv/_conflicts
	check "roots are equal" within 15 same_root a b
}

# The same timestamp on both sides: the node that joined first wins.
test_tie() {
	configure a ""
	configure b "a"
	check "kvs conflict makes two directories" "$KVS" conflict "$work/tie-a" "$work/tie-b" --key tie
	check "two nodes start on them" up a b
	check "the older node's version wins on it" within 15 has a tie '"written in directory 1"'
	check "and on the younger" within 15 has b tie '"written in directory 1"'
	check "the other one is listed" within 15 conflict_with a tie '"written in directory 2"'
	check "on both" within 15 conflict_with b tie '"written in directory 2"'
	check "roots are equal" within 15 same_root a b
}

test_identity() {
	check "three nodes form a cluster" trio
	put a before 1
	check "a write is everywhere" within 5 has c before 1

	configure copy "a"
	stop c
	cp -r "$work/identity-c" "$work/identity-copy"
	up c
	check "the third is back" within 10 members a 3
	start_recording copy
	check "a copied data directory is refused with status 1" exits_with 1 copy
	check "and the log says why" logged copy 'uuid|UUID|identity|copy'
	check "the original is unharmed" members a 3
	check "and takes writes" put c after 1

	configure twin "b"
	sed -i 's/^node_id:.*/node_id: identity-c/' "$work/identity-twin.yaml"
	start_recording twin
	check "a reused node_id is refused with status 1" exits_with 1 twin
	check "and the log names it" logged twin 'identity-c'
	check "the cluster is unharmed" members b 3
	check "a quick restart is no conflict: kill -9" kill9 c
	check "and start" up c
	check "it is a member again" within 10 members c 3
}

# Every acknowledged write survives kill -9 of the node that took it.
test_crash() {
	check "three nodes form a cluster" trio
	local i writers=()
	for i in 1 2 3 4; do
		( n=0
		  while [ ! -e "$work/crash.end" ]; do
			n=$((n + 1))
			put a "load/$i/$n" "$n" && echo "load/$i/$n" >>"$work/crash.acked.$i"
		  done ) &
		writers+=($!)
	done
	for i in 1 2 3; do
		sleep 1.5
		kill9 a
		up a
	done
	sleep 0.5
	touch "$work/crash.end"
	wait "${writers[@]}" 2>/dev/null
	local acked
	acked=$(cat "$work"/crash.acked.* | wc -l)
	check "writes were taken between three kills ($acked)" [ "$acked" -gt 50 ]
	check "roots become equal" within 30 same_root a b c
	check "no acknowledged write is missing on the killed node" none_missing a
	check "nor on the second" none_missing b
	check "nor on the third" none_missing c
}
none_missing() {
	local key missing=0
	"$KVS" ls load/ --url "$(url "$1")" | sort >"$work/crash.listed"
	while read -r key; do
		say "$key"
	done < <(cat "$work"/crash.acked.* | sort | comm -23 - "$work/crash.listed") >"$work/crash.missing"
	missing=$(wc -l <"$work/crash.missing")
	[ "$missing" -eq 0 ] || { say "  missing: $missing, first $(head -n 1 "$work/crash.missing")"; return 1; }
}

# A node that was away is caught up; a frozen one does not hold others up.
test_catchup() {
	check "three nodes form a cluster" trio
	check "the third ends" stop c
	local i
	for i in $(seq 1 200); do printf '{"key":"away/%s","value":%s}\n' "$i" "$i"; done >"$work/away.jsonl"
	check "200 keys are imported meanwhile" "$KVS" import "$work/away.jsonl" --url "$(url a)"
	check "it starts again" up c
	check "and is caught up" within 15 has c away/200 200
	check "roots are equal" within 15 same_root a b c
	freeze b
	check "with a frozen node, writes are taken" put a frozen 1
	check "and reach the other" within 5 has c frozen 1
	check "w=all says that it was not replicated in time" answers '"code":"not_replicated"' a '/kv/frozen2?w=all&timeout=1s' -X PUT -d 1
	check "and the write is kept" has a frozen2 1
	thaw b
	check "the thawed node gets both" within 30 has b frozen2 1
	check "roots are equal again" within 30 same_root a b c
}

# An empty node is filled; it can be killed on the way.
test_join() {
	check "three nodes form a cluster" trio
	local i
	for i in $(seq 1 20000); do printf '{"key":"many/%s","value":{"n":%s,"text":"some text that is written again and again"}}\n' "$i" "$i"; done >"$work/many.jsonl"
	check "20,000 keys are imported" "$KVS" import "$work/many.jsonl" --url "$(url a)"
	configure d "a b"
	check "a new node starts" up d
	kill9 d
	check "is killed, and starts again" up d
	check "it becomes normal" within 60 answers '"mode":"normal"' d /health
	check "and holds everything" within 30 same_root a b c d
	check "it is ready" is_status 200 d /ready
}

test_import() {
	configure a ""
	check "a node starts" up a
	printf '{"key":"a","value":1}\n{"key":"b","value":2}\nnonsense\n{"key":"c","value":3}\n' >"$work/broken.jsonl"
	"$KVS" import "$work/broken.jsonl" --url "$(url a)" >"$work/import.out" 2>&1
	check "a broken line fails the import" [ $? -ne 0 ]
	check "and is named by number" grep -q 'line 3' "$work/import.out"
	check "what stood before it is there" has a b 2
	sed -i 's/^nonsense$/{"key":"bb","value":4}/' "$work/broken.jsonl"
	check "mended, it resumes" "$KVS" import "$work/broken.jsonl" --url "$(url a)"
	check "to the end" has a c 3
}

test_secret() {
	check "three nodes form a cluster" trio
	put a inside 1
	configure e "a"
	KVS_CLUSTER_SECRET=ffffffffffffffffffffffffffffffff start e
	check "a node with another secret starts" within 15 serves e
	check "it stays alone" members e 1
	check "and says why" within 15 logged e '[Ss]ecret'
	local other
	other=$(KVS_CLUSTER_SECRET=ffffffffffffffffffffffffffffffff "$KVS" token create --scope admin)
	check "it was sent nothing" with "$other" 404 e /kv/inside
	check "it takes no token of the cluster" is_status 401 e /kv/inside
	check "the cluster is unharmed" members a 3
	KVS_CLUSTER_SECRET=short not_accepted_env
}
not_accepted_env() { check "a short secret is refused" not_accepted "$work/secret-a.yaml" 32; }

test_limits() {
	configure a "" "min_free_disk_mb: 16000000"
	sed -i '/min_free_disk_mb: 64/d' "$work/limits-a.yaml"
	check "a node starts on a disk below its watermark" up a
	check "writes get 507" is_status 507 a /kv/x -X PUT -d 1
	check "with a code" answers '"code":"disk_full"' a /kv/x -X PUT -d 1
	check "it is not ready" is_status 503 a /ready
	check "and serves reads" is_status 404 a /kv/x
	configure r "" "read_only: true"
	check "a read-only node starts" up r
	check "it refuses writes" answers '"code":"read_only"' r /kv/x -X PUT -d 1
}

# Bits that flip on disk never reach a client, and are mended from a peer.
test_rot() {
	check "three nodes form a cluster" trio
	local i
	for i in $(seq 1 3000); do printf '{"key":"rot/%s","value":"value %s"}\n' "$i" "$i"; done >"$work/rot.jsonl"
	check "3,000 keys are imported" "$KVS" import "$work/rot.jsonl" --url "$(url b)"
	check "roots are equal" within 15 same_root a b c
	check "the second ends" stop b
	local table
	for table in "$work"/rot-b/*.sst; do
		for i in $(seq 1 10); do
			printf '\xa5' | dd of="$table" bs=1 seek=$((RANDOM % 30000)) conv=notrunc status=none
		done
	done
	check "its tables are damaged, and it starts again" up b
	check "every key is read right" all_right b
	check "roots are equal" within 40 same_root a b c
	check "and every key is still there" all_right b
}
all_right() {
	local i wrong=0
	for i in $(seq 1 37 3000); do has "$1" "rot/$i" "\"value $i\"" || wrong=$((wrong + 1)); done
	[ "$wrong" -eq 0 ] || { say "  $wrong keys are wrong"; return 1; }
}

# Nobody gets in without a token, and what one may do holds on every node.
test_trust() {
	check "three nodes form a cluster" trio
	local path
	for path in /kv/x /kv/_range /members/ /metrics /auth/me /sync/merkle/root /nothing; do
		check "without a token $path answers 401" stranger_gets 401 a "$path"
	done
	check "and says how to get one" stranger_reads 'kvs token create' a /kv/x
	check "/health is open" stranger_gets 200 a /health
	check "/ready too" stranger_gets 200 a /ready
	check "an admin's token opens no call between nodes" is_status 401 a /sync/push -X POST -d x
	check "a key of root is written" within 5 put a shared/root '"of root"'

	local anna annas jti
	anna=$("$KVS" user add anna --url "$(url a)")
	check "a user is made" within 5 answers "\"uuid\":\"$anna\"" b /auth/users/anna
	annas=$(token_of b "{\"user_uuid\":\"$anna\",\"scopes\":[\"read\",\"write:notes/\"],\"expires_in\":\"1h\"}")
	check "her token writes where its scope says" within 5 with "$annas" 201 c /kv/notes/1 -X PUT -d '"hers"'
	check "and not elsewhere" with "$annas" 403 c /kv/shared/x -X PUT -d 1
	check "it reads what others may" within 5 with "$annas" 200 b /kv/shared/root
	check "and manages nobody" with "$annas" 403 b /auth/users
	check "root closes a key" "$KVS" chmod cdwr:----:---- shared/root --url "$(url a)"
	check "and it is gone for her, everywhere" within 5 with "$annas" 404 c /kv/shared/root
	check "lists included" lists_without "$annas" b root
	check "what she wrote is hers" answers "\"owner\":\"$anna\"" a '/kv/notes/1?metadata'

	jti=$("$KVS" token show - -o json <<<"$annas" | sed 's/.*"jti":"\([^"]*\)".*/\1/')
	check "her token is revoked" "$KVS" token revoke --url "$(url a)" -- "$jti"
	check "and worthless at once" with "$annas" 401 a /kv/notes/1
	check "on the others too" within 5 with "$annas" 401 c /kv/notes/1
	annas=$(token_of a "{\"user_uuid\":\"$anna\",\"scopes\":[\"read\"]}")
	check "a second token is good" within 5 with "$annas" 200 b /kv/notes/1
	freeze c
	check "the user is deleted while a node is cut off" "$KVS" user rm anna --url "$(url a)"
	check "and the token worthless" within 5 with "$annas" 401 b /kv/notes/1
	thaw c
	check "the node learns of it when it is back" within 15 with "$annas" 401 c /kv/notes/1
	kill9 b
	up b
	check "and a restart forgets nothing" with "$annas" 401 b /kv/notes/1
	check "no token is in any log" no_token_logged "$annas"
}
stranger_gets() { [ "$(stranger -s -o /dev/null -w '%{http_code}' "$(url "$2")$3")" = "$1" ]; }
stranger_reads() { stranger -s "$(url "$2")$3" | grep -q -- "$1"; }
with() { # TOKEN STATUS NAME PATH [CURL ARGUMENT...]
	local token=$1 want=$2 n=$3 p=$4
	shift 4
	[ "$(stranger -s -o /dev/null -w '%{http_code}' -H "Authorization: Bearer $token" "$@" "$(url "$n")$p")" = "$want" ]
}
# A node that has just met another one with data may be filled first, and asks to come back.
token_of() { curl -fs --retry 5 "$(url "$1")/auth/tokens" -d "$2" | sed 's/.*"token":"\([^"]*\)".*/\1/'; }
lists_without() { ! stranger -fs -H "Authorization: Bearer $1" "$(url "$2")/kv/_range?prefix=shared/" | grep -q "$3"; }
no_token_logged() { ! grep -qF -e "${TOKEN##*.}" -e "${1##*.}" -e "$secret" "$work/$current"-*.log; }

# Everything on the TCP port is TLS, and nodes verify each other.
test_tls() {
	local n
	"$KVS" tls init --dir "$work/tls" a=127.0.0.1 b=127.0.0.1 c=127.0.0.1 >/dev/null
	"$KVS" tls init --dir "$work/tls-else" d=127.0.0.1 >/dev/null
	scheme=https
	export CURL_CA_BUNDLE=$work/tls/ca.pem KVS_CA_FILE=$work/tls/ca.pem
	configure a "" && configure b "a" && configure c "a b"
	for n in a b c; do tls_lines "$n" "$work/tls/$n" "$work/tls/ca.pem"; done
	check "three nodes with certificates start" up a b c
	check "and form a cluster" within 10 all_see 3 a b c
	check "a write reaches all" within 10 answers '"replicas":3' b '/kv/x?w=all' -X PUT -d 1
	check "the command line finds them equal" within 10 agree a
	check "without TLS there is nothing to read" answers_plainly 'https://' a
	check "a call for nodes wants a certificate, whatever the token" answers '"code":"certificate_required"' a /sync/push -X POST -d x
	configure d "a"
	tls_lines d "$work/tls-else/d" "$work/tls-else/ca.pem"
	start d
	check "a node of another CA starts" within 15 logged d 'msg=serving'
	check "and is kept out" within 15 logged a 'CA'
	check "the cluster is unharmed" members a 3
	scheme=http
	unset CURL_CA_BUNDLE KVS_CA_FILE
}
all_see() { # COUNT NAME...
	local n count=$1
	shift
	for n in "$@"; do members "$n" "$count" || return 1; done
}
answers_plainly() { stranger -s "http://127.0.0.1:${port[$2]}/health" | grep -q -- "$1"; }
tls_lines() { printf 'tls_cert_file: %s.pem\ntls_key_file: %s-key.pem\ntls_ca_file: %s\n' "$2" "$2" "$3" >>"$work/$current-$1.yaml"; }
agree() { "$KVS" status --url "$(url "$1")" | grep -q 'the same on all alive members'; }

# The tamper log is checked, and what another node witnessed finds out a log that
# is whole but not what it was.
test_audit() {
	check "three nodes form a cluster" trio
	put a first 1
	check "a refused attempt is made" stranger_gets 401 a /kv/first
	check "the log has both" within 5 has_entries a
	stop c
	cp -r "$work/audit-c" "$work/audit-old"
	up c
	put c second 2
	check "another node witnesses the new end" within 25 witnessed a c 'second'
	stop c
	check "the stopped node's log is as it was written" "$KVS" audit verify "$work/audit-c.yaml" --peer "$(url a)"
	check "the log is listed offline too" lists_offline c second
	rm -rf "$work/audit-c"
	mv "$work/audit-old" "$work/audit-c"
	check "an older log passes by itself" "$KVS" audit verify "$work/audit-c.yaml"
	"$KVS" audit verify "$work/audit-c.yaml" --peer "$(url a)" >"$work/audit.out" 2>&1
	check "and not before a witness" [ $? -eq 1 ]
	check "who says what is missing" grep -q 'truncated' "$work/audit.out"
}
has_entries() {
	"$KVS" audit ls --url "$(url "$1")" >"$work/audit.ls" && grep -q 'put.*root.*first' "$work/audit.ls" && grep -q 'refused.*first.*unauthorized' "$work/audit.ls"
}
lists_offline() { "$KVS" audit ls "$work/$current-$1.yaml" --key "$2" | grep -q "$2"; }
# witnessed WITNESS NODE KEY: the witness has a checkpoint behind the entry of the key.
witnessed() {
	local entry last
	entry=$("$KVS" audit ls --url "$(url "$2")" --key "$3" | head -n 1 | cut -f 1)
	last=$(curl -fs "$(url "$1")/admin/audit/witnessed?node=$current-$2" | grep -o '"n":[0-9]*' | tail -n 1 | cut -d : -f 2)
	[ -n "$entry" ] && [ -n "$last" ] && [ "$last" -ge "$entry" ]
}

# A secret is exchanged for another while the cluster stays up.
test_rotation() {
	local n file=$work/rotation.secret
	unset KVS_CLUSTER_SECRET
	(umask 077 && "$KVS" secret new >"$file")
	configure a "" "cluster_secret_file: $file"
	configure b "a" "cluster_secret_file: $file"
	check "two nodes start with a secret file" up a b
	check "and form a cluster" within 10 members a 2
	local before
	before=$("$KVS" token create --scope admin --config "$work/rotation-a.yaml")
	check "a token is made" with "$before" 201 a /kv/x -X PUT -d 1
	"$KVS" secret rotate add --file "$file" 2>/dev/null
	check "after the first step the nodes restart, one by one" one_by_one
	"$KVS" secret rotate switch --file "$file" 2>/dev/null
	check "after the second too" one_by_one
	check "the old token is still good" with "$before" 200 b /kv/x
	local after
	after=$("$KVS" token create --scope admin --config "$work/rotation-a.yaml")
	check "and so is a new one" with "$after" 200 b /kv/x
	"$KVS" secret rotate finish --file "$file" 2>/dev/null
	check "after the third too" one_by_one
	check "the old token is void" with "$before" 401 a /kv/x
	check "and the new one good" with "$after" 200 a /kv/x
	export KVS_CLUSTER_SECRET=$secret
}
one_by_one() {
	local n
	for n in a b; do
		stop "$n" && up "$n" && within 10 members a 2 && within 10 members b 2 || return 1
	done
}

# A backup of one cluster is restored as another.
test_backup() {
	configure a ""
	check "a node starts" up a
	put a docs/1 '"kept"'
	put a docs/2 '"deleted"'
	is_status 204 a /kv/docs/2 -X DELETE
	check "a full backup is made" answers '"type":"full"' a /admin/backup -X POST
	put a docs/3 '"later"'
	check "and an incremental one" "$KVS" backup --type incremental --url "$(url a)"
	stop a
	local files=("$work"/backup-a-backups/*.kvsb)
	check "both are whole" "$KVS" backup verify "${files[@]}"
	configure b ""
	check "they are restored into an empty directory" "$KVS" restore "${files[@]}" --config "$work/backup-b.yaml"
	check "a node starts on it" up b
	check "it has what was there" has b docs/1 '"kept"'
	check "and what came later" has b docs/3 '"later"'
	check "what was deleted stays deleted" lacks b docs/2
	check "a directory that is not empty is refused" fails "$KVS" restore "${files[@]}" --config "$work/backup-a.yaml"
	cp "${files[0]}" "$work/cut.kvsb"
	truncate -s -9 "$work/cut.kvsb"
	check "so is a file that is cut short" fails "$KVS" backup verify "$work/cut.kvsb"
	is_status 204 b /kv/docs/1 -X DELETE
	check "a merge into the running cluster" "$KVS" restore --merge "${files[@]}" --url "$(url b)"
	check "brings nothing deleted back" lacks b docs/1
}
fails() { ! "$@" >/dev/null 2>&1; }

all="form http conflict tie identity crash catchup join import secret limits rot trust tls audit rotation backup"
for current in ${*:-$all}; do
	declare -F "test_$current" >/dev/null || { say "no test $current; there are: $all"; exit 2; }
	say "$current"
	port=() pid=()
	begin=$SECONDS
	"test_$current"
	say "  ($((SECONDS - begin)) s)"
	for p in "${pids[@]}"; do kill -9 "$p" 2>/dev/null; done
	pids=()
	pkill -9 -f "$work/$current-" 2>/dev/null
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
