//! Users: who they are, what they may, and that they come back.

use crate::client::ClientId;
use crate::commands::tests::Bench;
use crate::engine::{Engine, Next, Options};

fn check(bench: &mut Bench, client: ClientId, plays: &[(&str, &str)]) {
    for (said, reply) in plays {
        assert_eq!(bench.say_as(client, said), reply.trim_end(), "{said}");
    }
}

const HASH: &str = "30c952fab122c3f9759f02a6d95c3758b246b4fee239957b2d4fee46e26170c4";

#[test]
fn a_user_is_made_of_rules_and_tells_them() {
    let mut bench = Bench::new();
    let own = bench.client;
    let user = format!(
        "user al on sanitize-payload #{HASH} ~a* %R~b* resetchannels &ch* -@all +@read -get \
         +config|get (~z* resetchannels -@all +set)"
    );
    let list = format!(
        "*2 ${} {user} $51 user default on nopass sanitize-payload ~* &* +@all",
        user.len()
    );
    check(
        &mut bench,
        own,
        &[
            ("ACL WHOAMI", "$7 default"),
            ("ACL LIST", "*1 $51 user default on nopass sanitize-payload ~* &* +@all"),
            (
                "ACL SETUSER al on >pw ~a* %R~b* &ch* +get +set -@all +@read -get +config|get \
                 (+set ~z*)",
                "+OK",
            ),
            ("ACL LIST", &list),
            ("ACL USERS", "*2 $2 al $7 default"),
            ("ACL GETUSER nope", "$-1"),
            ("ACL SETUSER al foo", "-ERR Error in ACL SETUSER modifier 'foo': Syntax error"),
            (
                "ACL SETUSER al +nope",
                "-ERR Error in ACL SETUSER modifier '+nope': Unknown command or category name in ACL",
            ),
            (
                "ACL SETUSER al <zz",
                "-ERR Error in ACL SETUSER modifier '<zz': The password you are trying to remove \
                 from the user does not exist",
            ),
            (
                "ACL SETUSER al #zz",
                "-ERR Error in ACL SETUSER modifier '#zz': The password hash must be exactly 64 \
                 characters and contain only lowercase hexadecimal characters",
            ),
            ("ACL SETUSER al (", "-ERR Unmatched parenthesis in acl selector starting at '('."),
            ("ACL SETUSER al allkeys", "+OK"),
            (
                "ACL SETUSER al ~x",
                "-ERR Error in ACL SETUSER modifier '~x': Adding a pattern after the * pattern (or \
                 the 'allkeys' flag) is not valid and does not have any effect. Try 'resetkeys' to \
                 start with an empty list of patterns",
            ),
            ("ACL DELUSER default", "-ERR The 'default' user cannot be removed"),
            ("ACL DELUSER nope", ":0"),
            ("ACL CAT nope", "-ERR Unknown category 'nope'"),
            ("ACL SETUSER al resetkeys %RW~q %W~w %R~a", "+OK"),
        ],
    );
    let told = bench.say("ACL GETUSER al");
    assert!(told.contains("$4 keys $12 ~q %W~w %R~a $8 channels $4 &ch* $9"), "{told}");
    assert_eq!(bench.say("ACL GENPASS").len(), "$64 ".len() + 64);
    assert_eq!(bench.say("ACL GENPASS 5").len(), "$2 ".len() + 2);
}

#[test]
fn a_user_may_what_its_rules_say() {
    let mut bench = Bench::new();
    let (own, other) = (bench.client, bench.connect());
    bench.say("ACL SETUSER al on >pw ~a* %R~b* &ch* +@all -get +@string -set|x");
    bench.say("ACL SETUSER al on >pw ~a* %R~b* &ch* +@all -mget -config (+set ~z*)");
    check(
        &mut bench,
        other,
        &[
            ("AUTH al bad", "-WRONGPASS invalid username-password pair or user is disabled."),
            ("AUTH al pw", "+OK"),
            ("ACL WHOAMI", "$2 al"),
            ("SET a1 v", "+OK"),
            ("GET b1", "$-1"),
            ("SET b1 v", "-NOPERM No permissions to access a key"),
            ("SET a1 w GET", "$1 v"),
            ("SET z1 v", "+OK"),
            ("GET z1", "-NOPERM No permissions to access a key"),
            ("MGET a1", "-NOPERM User al has no permissions to run the 'mget' command"),
            ("CONFIG GET hz", "-NOPERM User al has no permissions to run the 'config|get' command"),
            ("PUBLISH ch1 x", ":0"),
            ("PUBLISH other x", "-NOPERM No permissions to access a channel"),
            ("PSUBSCRIBE ch1*", "-NOPERM No permissions to access a channel"),
            ("COPY b1 a1", "-ERR unknown command 'COPY', with args beginning with: 'b1' 'a1' "),
            ("MULTI", "+OK"),
            ("GET z1", "-NOPERM No permissions to access a key"),
            ("EXEC", "-EXECABORT Transaction discarded because of previous errors."),
        ],
    );
    check(
        &mut bench,
        own,
        &[
            ("ACL DRYRUN al get z", "$48 User al has no permissions to access the 'z' key"),
            ("ACL DRYRUN al get a", "+OK"),
            ("ACL DRYRUN nope get z", "-ERR User 'nope' not found"),
            ("ACL DRYRUN al nope", "-ERR Command 'nope' not found"),
        ],
    );
    let log = bench.say("ACL LOG 1");
    assert!(log.contains("$6 reason $3 key $7 context $5 multi $6 object $2 z1"), "{log}");
    assert_eq!(bench.say("ACL DELUSER al"), ":1");
    assert_eq!(
        bench.engine.next_told().map(|(id, told)| (id, told.next)),
        Some((other, Next::Close))
    );
}

#[test]
fn a_password_is_asked_for_if_there_is_one() {
    let mut bench = Bench::new();
    let own = bench.client;
    check(
        &mut bench,
        own,
        &[
            (
                "AUTH a",
                "-ERR AUTH <password> called without any password configured for the default user. \
                 Are you sure your configuration is correct?",
            ),
            ("CONFIG SET requirepass foo", "+OK"),
            ("GET x", "$-1"),
        ],
    );
    let other = bench.connect();
    let hello = bench.say_as(other, "HELLO 3");
    assert!(hello.starts_with("-NOAUTH HELLO must be called with"), "{hello}");
    check(
        &mut bench,
        other,
        &[
            ("GET x", "-NOAUTH Authentication required."),
            ("NOPE", "-ERR unknown command 'NOPE', with args beginning with:"),
            ("AUTH bad", "-WRONGPASS invalid username-password pair or user is disabled."),
            ("AUTH foo", "+OK"),
            ("GET x", "$-1"),
            ("RESET", "+RESET"),
            ("GET x", "-NOAUTH Authentication required."),
        ],
    );
    let hello = bench.say_as(other, "HELLO 3 AUTH default foo SETNAME me");
    assert!(hello.starts_with("%7 $6 server"), "{hello}");
}

#[test]
fn users_and_settings_come_back_after_a_restart() {
    let mut bench = Bench::new();
    bench.say("ACL SETUSER al on >pw ~a* -@all +get (+set ~z*)");
    bench.say("ACL SETUSER gone on");
    bench.say("ACL DELUSER gone");
    bench.say("CONFIG SET requirepass secret");
    bench.say("CONFIG SET maxmemory 10mb hz 20");
    bench.say("CONFIG REWRITE");
    bench.say("CONFIG SET hz 30");
    let list = bench.say("ACL LIST");
    let journal = bench.engine.keyspace().journal().bytes().to_vec();
    let options = Options { seed: 1, databases: 16, journal: true, clock: || 0 };
    let mut engine = Engine::new(&options);
    engine.keyspace().begin_replay();
    engine.keyspace().apply(&journal).expect("it was written just now");
    engine.keyspace().end_replay();
    engine.restore();
    let client = engine.connect(crate::client::Peer::default());
    let mut again = Bench { engine, client };
    check(
        &mut again,
        client,
        &[
            ("GET a", "-NOAUTH Authentication required."),
            ("AUTH secret", "+OK"),
            ("ACL LIST", &list),
            ("CONFIG GET maxmemory", "*2 $9 maxmemory $8 10485760"),
            ("CONFIG GET hz", "*2 $2 hz $2 20"),
        ],
    );
}
