//! Sample values, as the text that PostgreSQL reads.

/// Types whose input function refuses everything.
pub(super) const WITHOUT_INPUT: [&str; 1] = ["gtsvector"];

/// How many values of a type are drawn at random, besides the chosen ones.
const DRAWN: usize = 12;

/// By the name that `regtype` shows.
pub(crate) fn built_in() -> Vec<(&'static str, Vec<String>)> {
    let mut all: Vec<(&str, Vec<String>)> = CHOSEN
        .iter()
        .map(|(name, samples)| (*name, samples.iter().map(ToString::to_string).collect()))
        .collect();
    // The same values in each run: a failure can be looked at again.
    let mut random = fastrand::Rng::with_seed(20_251_017);
    for (name, samples) in &mut all {
        for _ in 0..DRAWN {
            samples.extend(drawn(name, &mut random));
        }
    }
    all
}

/// The samples of one type.
pub(crate) fn of(alias: &str) -> Vec<String> {
    let name = match alias {
        "timestamptz" => "timestamp with time zone",
        "timestamp" => "timestamp without time zone",
        other => other,
    };
    built_in().into_iter().filter(|(known, _)| *known == name).flat_map(|(_, all)| all).collect()
}

fn drawn(name: &str, random: &mut fastrand::Rng) -> Option<String> {
    let digits = |random: &mut fastrand::Rng, most| -> String {
        (0..random.usize(1..most)).map(|_| random.digit(10)).collect()
    };
    Some(match name {
        "smallint" => random.i16(..).to_string(),
        "integer" => random.i32(..).to_string(),
        "bigint" => random.i64(..).to_string(),
        "real" => f32::from_bits(random.u32(..)).to_string(),
        "double precision" => f64::from_bits(random.u64(..)).to_string(),
        "numeric" => format!("-{}.{}", digits(random, 40), digits(random, 40)),
        "text" | "character varying" | "character" => {
            let special = ['"', '\\', '{', '}', ',', '(', ')', ' ', '\n', '\u{1}', 'é', '🦀', 'N'];
            (0..random.usize(0..12)).map(|_| special[random.usize(..special.len())]).collect()
        }
        "bytea" => {
            let hex = (0..random.usize(0..9)).map(|_| format!("{:02x}", random.u8(..)));
            format!("\\x{}", hex.collect::<String>())
        }
        "uuid" => format!("{:032x}", random.u128(..)),
        "date" => date(random),
        "timestamp without time zone" | "timestamp with time zone" => {
            let micros = random.u32(0..1_000_000);
            let (hours, minutes) = (random.u8(0..24), random.u8(0..60));
            let date = date(random);
            let (date, era) = date.split_once(' ').unwrap_or((&date, ""));
            format!("{date} {hours:02}:{minutes:02}:07.{micros:06} {era}")
        }
        "interval" => format!(
            "{} months {} days {} seconds",
            random.i16(..),
            random.i16(..),
            f64::from(random.i32(..)) / 1000.0
        ),
        _ => return None,
    })
}

/// Within the years that all three types have.
fn date(random: &mut fastrand::Rng) -> String {
    let (month, day) = (random.u8(1..=12), random.u8(1..=28));
    match random.u8(0..3) {
        0 => format!("{:04}-{month:02}-{day:02} BC", random.u16(1..4713)),
        1 => format!("{:04}-{month:02}-{day:02}", random.u32(1..294_276)),
        _ => format!("{:04}-{month:02}-{day:02}", random.u32(1900..2100)),
    }
}

const TEXTS: &[&str] = &[
    "",
    " ",
    "null",
    "NULL",
    "plain",
    "a,b;c",
    "{a}",
    "(a)",
    "\"quoted\" and \\back\\\\slashed\\",
    "'",
    "line\nfeed\r\ttab",
    "\u{1}\u{8}\u{c}\u{1f}\u{7f}",
    "张三 é 🦀 \u{2028}\u{FFFD}",
];

const CHOSEN: &[(&str, &[&str])] = &[
    ("boolean", &["t", "f"]),
    ("bytea", &["", "\\x00", "\\x5c22", "\\xdeadbeef00"]),
    ("\"char\"", &["", "a", "\"", "\\", ",", " "]),
    ("name", TEXTS),
    ("bigint", &["0", "9007199254740993", "9223372036854775807", "-9223372036854775808"]),
    ("smallint", &["0", "-32768"]),
    ("int2vector", &["", "1", "1 -2 3"]),
    ("integer", &["0", "-2147483648"]),
    ("regproc", &["now", "-"]),
    ("text", TEXTS),
    ("oid", &["0", "4294967295"]),
    ("tid", &["(1,2)"]),
    ("xid", &["4294967295"]),
    ("cid", &["1"]),
    ("oidvector", &["", "1", "1 2 4294967295"]),
    ("json", &["null", "{\"a\": [1, \"b\\\"\\u00e9\", 1e400]}", " \"x\" ", "true", "{}"]),
    ("xml", &["<a b=\"c\">d, {e}</a>", "text"]),
    ("xid8", &["18446744073709551615"]),
    ("point", &["(1.5,-2)", "(NaN,Infinity)"]),
    ("lseg", &["[(1,2),(3,4)]"]),
    ("path", &["[(1,2),(3,4)]", "((1,2),(3,4))"]),
    ("box", &["(3,4),(1,2)"]),
    ("polygon", &["((1,2),(3,4),(5,6))"]),
    ("line", &["{1,-1,0}"]),
    ("circle", &["<(1,2),3>"]),
    ("cidr", &["10.0.0.0/8", "2001:db8::/32"]),
    ("real", &["0", "-0", "1.5", "3.4028235e38", "1e-45", "NaN", "Infinity", "-Infinity"]),
    (
        "double precision",
        &[
            "0",
            "-0",
            "0.1",
            "1e20",
            "1e15",
            "123456789012345680",
            "1.7976931348623157e308",
            "5e-324",
            "NaN",
            "Infinity",
            "-Infinity",
        ],
    ),
    ("money", &["$1,234.56", "-0.01"]),
    ("macaddr8", &["08:00:2b:01:02:03:04:05"]),
    ("macaddr", &["08:00:2b:01:02:03"]),
    ("inet", &["192.168.1.1", "192.168.1.1/24", "::1"]),
    ("aclitem", &["=r/postgres", "postgres=arwdDxt/postgres"]),
    ("character", TEXTS),
    ("character varying", TEXTS),
    (
        "date",
        &[
            "1970-01-01",
            "2000-02-29",
            "0001-01-01",
            "4713-01-01 BC",
            "5874897-12-31",
            "infinity",
            "-infinity",
        ],
    ),
    ("time without time zone", &["00:00", "23:59:59.999999", "24:00:00"]),
    (
        "timestamp without time zone",
        &[
            "1970-01-01 00:00:00",
            "2024-02-29 23:59:59.999999",
            "1969-12-31 23:59:59.5",
            "4713-01-01 00:00:00 BC",
            "0001-12-31 12:00:00.5 BC",
            "294276-12-31 23:59:59.999999",
            "infinity",
            "-infinity",
        ],
    ),
    (
        "timestamp with time zone",
        &[
            "1970-01-01 00:00:00+00",
            "2024-02-29 23:59:59.999999+05:30",
            "1969-12-31 23:59:59.5-12",
            "4713-01-01 00:00:00+00 BC",
            "0001-12-31 12:00:00.5+00 BC",
            "294276-12-31 23:59:59.999999+00",
            "infinity",
            "-infinity",
        ],
    ),
    ("interval", &["0", "1 year 2 mons -3 days 04:05:06.789", "-178000000 years"]),
    ("time with time zone", &["12:00:00+05:30", "24:00:00-15:59:59", "00:00:00.000001+00"]),
    ("bit", &["1"]),
    ("bit varying", &["", "10101"]),
    (
        "numeric",
        &[
            "0",
            "0.00",
            "-0.5",
            "100",
            "9007199254740993",
            "123456789012345678901234567890.123456789",
            "1e-1000",
            "1e400",
            "NaN",
            "Infinity",
            "-Infinity",
        ],
    ),
    ("refcursor", &["cursor one"]),
    ("regprocedure", &["sum(integer)"]),
    ("regoper", &["pg_catalog.||/"]),
    ("regoperator", &["+(integer,integer)"]),
    ("regclass", &["pg_class", "4000000000"]),
    ("regcollation", &["\"C\""]),
    ("regtype", &["integer", "timestamp with time zone", "integer[]"]),
    ("regrole", &["postgres"]),
    ("regnamespace", &["pg_catalog"]),
    ("regdatabase", &["postgres"]),
    ("uuid", &["00000000-0000-0000-0000-000000000000"]),
    ("pg_lsn", &["16/B374D848"]),
    ("tsvector", &["'a b':1A 'c''d':2", ""]),
    ("tsquery", &["'a b' & !c", ""]),
    ("regconfig", &["english"]),
    ("regdictionary", &["simple"]),
    ("jsonb", &["null", "{\"a\": [1.50, \"b\\\"\\n\"], \"b\": {}}", "1e400", "\"x\"", "[]"]),
    ("jsonpath", &["$.\"a\"[*] ? (@ > 1)"]),
    ("txid_snapshot", &["10:20:10,14,15"]),
    ("pg_snapshot", &["10:20:10,14,15"]),
    ("int4range", &["empty", "[1,5)", "(,)"]),
    ("numrange", &["[1.50,2.5]"]),
    ("tsrange", &["[2024-01-01 00:00:00,2024-01-02 12:00:00)", "(,infinity]"]),
    ("tstzrange", &["[2024-01-01 00:00:00+00,2024-01-02 12:00:00+00)"]),
    ("daterange", &["[2024-01-01,2024-02-01)"]),
    ("int8range", &["[1,9223372036854775807)"]),
    ("int4multirange", &["{}", "{[1,3),[5,7)}"]),
    ("nummultirange", &["{[1.5,2.5]}"]),
    ("tsmultirange", &["{[2024-01-01 00:00:00,2024-01-02 12:00:00)}"]),
    ("tstzmultirange", &["{[2024-01-01 00:00:00+00,2024-01-02 12:00:00+00)}"]),
    ("datemultirange", &["{[2024-01-01,2024-02-01)}"]),
    ("int8multirange", &["{[1,3)}"]),
];

pub(super) const MADE_TYPES: &str = r#"
    CREATE TYPE pg_temp.mood AS ENUM ('happy', 'so, so', 'a "b" \c', 'NULL', '');
    CREATE DOMAIN pg_temp.score AS numeric CHECK (VALUE > 0);
    CREATE DOMAIN pg_temp.high_score AS pg_temp.score;
    CREATE DOMAIN pg_temp.moments AS timestamptz[];
    CREATE TYPE pg_temp.pair AS (n bigint, "a ""t""" text);
    CREATE DOMAIN pg_temp.sound_pair AS pg_temp.pair;
    CREATE TYPE pg_temp.tree AS (
        pairs pg_temp.pair[], mood pg_temp.mood, moments pg_temp.moments, raw bytea, doc jsonb);
    CREATE TYPE pg_temp.nothing AS ();
    CREATE TYPE pg_temp.text_range AS RANGE (subtype = text, collation = "C");
    CREATE TEMP TABLE changed (a int, gone text, "B" timestamptz);
    ALTER TABLE changed DROP COLUMN gone;
"#;

pub(super) const MADE: &[(&str, &[&str])] = &[
    ("pg_temp.mood", &["happy", "so, so", "a \"b\" \\c", "NULL", ""]),
    ("pg_temp.score", &["1.50", "NaN"]),
    ("pg_temp.high_score", &["2"]),
    ("pg_temp.moments", &["{}", "{\"2024-01-01 00:00:00+00\",NULL,infinity}", "[5:5]={-infinity}"]),
    ("pg_temp.pair", &["(,)", "(1,\"x, \"\"y\"\" \\\\z\")", "(-1,)", "(,\"\")"]),
    ("pg_temp.sound_pair", &["(7,\" \")"]),
    (
        "pg_temp.tree",
        &[
            "(,,,,)",
            r#"("{""(1,\\""a \\\\\\""\\"")"",NULL}",happy,"{2024-01-01 00:00:00+00}","\\x00ff","{""a"": [1]}")"#,
        ],
    ),
    ("pg_temp.text_range", &["[a,\"b c\")", "empty"]),
    ("information_schema.cardinal_number", &["3"]),
    ("information_schema.time_stamp", &["2024-01-01 00:00:00+00"]),
    ("pg_temp.changed", &["(1,\"2024-01-01 00:00:00+00\")"]),
];

/// Values that are not made by casting a text.
pub(super) const EXPRESSIONS: &[&str] = &[
    "ROW()::pg_temp.nothing",
    "'{\"(1,a)\",\"(2,\\\"b c\\\")\"}'::pg_temp.sound_pair[]",
    "'{\"{2024-01-01 00:00:00+00,NULL}\",\"{}\",NULL}'::pg_temp.moments[]",
    "'{{\"{infinity}\"},{\"{}\"}}'::pg_temp.moments[]",
    "'[0:1][2:3][4:4]={{{1},{2}},{{3},{NULL}}}'::int[]",
    "'{{{{{{1}}}}}}'::int[]",
    "'{}'::pg_temp.tree[]",
    "(SELECT array_agg(n) FROM pg_namespace n)",
    "(SELECT i FROM pg_index i LIMIT 1)",
    "(SELECT array_agg(i) FROM pg_index i)",
    "(SELECT p FROM pg_proc p WHERE proname = 'json_each')",
    "(SELECT t FROM pg_type t WHERE typname = 'text')",
];
