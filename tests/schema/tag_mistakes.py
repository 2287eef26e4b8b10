"""Fields with a tag that makes no sense, and what is said about each."""

from feast.types import Array, Bytes, Float32, Int64, String, UnixTimestamp

# name of the view -> (type of its field `f`, tags, what the error says after "bad_N.f: ")
MISTAKES = {
    "bad_tag": (Int64, {"mtlrank.rol": "dense"}, "unknown tag 'mtlrank.rol'; did you mean 'role'?"),
    "bad_tag_of_context": (Int64, {"mtlrank.at_scoring": "1"}, "unknown tag 'mtlrank.at_scoring'; known: "),
    "bad_role": (Int64, {"mtlrank.role": "number"}, "tag mtlrank.role='number': "),
    "bad_dim": (Int64, {"mtlrank.dim": "0"}, "tag mtlrank.dim='0': "),
    "bad_dim_text": (Int64, {"mtlrank.dim": "wide"}, "tag mtlrank.dim='wide': "),
    "bad_vocab": (Int64, {"mtlrank.vocab": "hash"}, "tag mtlrank.vocab='hash': "),
    "bad_buckets": (Int64, {"mtlrank.buckets": "-1"}, "tag mtlrank.buckets='-1': "),
    "bad_min_count": (Int64, {"mtlrank.min_count": "0"}, "tag mtlrank.min_count='0': "),
    "bad_transform": (Float32, {"mtlrank.transform": "log"}, "tag mtlrank.transform='log': "),
    "bad_bins": (Float32, {"mtlrank.bins": "-1"}, "tag mtlrank.bins='-1': "),
    "bad_max_len": (Array(Int64), {"mtlrank.max_len": "0"}, "tag mtlrank.max_len='0': "),
    "float_as_id": (
        Float32,
        {"mtlrank.role": "categorical"},
        "mtlrank.role=categorical does not fit type Float32; it takes dense, ignore",
    ),
    "text_as_number": (
        String,
        {"mtlrank.role": "dense"},
        "mtlrank.role=dense does not fit type String; it takes categorical, ignore",
    ),
    "id_as_history": (Int64, {"mtlrank.role": "sequence"}, "mtlrank.role=sequence does not fit type Int64"),
    "history_as_id": (
        Array(String),
        {"mtlrank.role": "categorical"},
        "mtlrank.role=categorical does not fit type Array(String); it takes sequence, bag, ignore",
    ),
    "vector": (
        Array(Float32),
        {},
        "type Array(Float32) cannot be read by the model; tag it mtlrank.role=ignore",
    ),
    "bytes": (Bytes, {}, "type Bytes cannot be read by the model; tag it mtlrank.role=ignore"),
    "time": (UnixTimestamp, {}, "type UnixTimestamp cannot be read by the model"),
    "shares_nothing": (
        Int64,
        {"mtlrank.shares": "usr_id"},
        "shares='usr_id' is no model input; did you mean 'user_id'?",
    ),
    "shares_number": (
        Float32,
        {"mtlrank.shares": "user_id"},
        "shares='user_id': a dense input has no embedding",
    ),
    "shares_itself": (Int64, {"mtlrank.shares": "shares_itself__f"}, "which has no embedding of its own"),
    "shares_other_dim": (
        Int64,
        {"mtlrank.shares": "user_id", "mtlrank.dim": "9"},
        "dim differs from that of 'user_id', whose embedding it shares",
    ),
    "times_of_an_id": (
        Int64,
        {"mtlrank.times": "user_id"},
        "times='user_id': only a sequence has times, this is a categorical",
    ),
    "times_of_nowhere": (
        Array(Int64),
        {"mtlrank.times": "times_of_nowhere__g"},
        "times='times_of_nowhere__g' is no feature of the service; did you mean 'times_of_nowhere__f'?",
    ),
    "times_that_are_none": (
        Array(Int64),
        {"mtlrank.times": "times_that_are_none__f"},
        "times='times_that_are_none__f' is Array(Int64); it must be Array(UnixTimestamp)",
    ),
}
