// SPDX-License-Identifier: MIT OR Apache-2.0
//! xl's own parser, libxlutil, which needs no Xen. It is asked in a process of its own: what it does not like, it may answer with
//! an abort.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

/// What is asked comes as JSON, with bytes as the characters of the same numbers. Of libxl_device_disk, the members that are
/// looked at lie where libxl_types.idl of this version puts them.
const SCRIPT: &str = r#"
import ctypes, json, sys
from ctypes import byref, c_char_p, c_int, c_long, c_void_p

try:
    util, light, c = ctypes.CDLL("libxlutil.so.4.17"), ctypes.CDLL("libxenlight.so.4.17"), ctypes.CDLL(None)
except OSError:
    print("null")
    sys.exit()

def bind(library, name, result, *arguments):
    function = getattr(library, name)
    function.restype, function.argtypes = result, arguments
    return function

fopen = bind(c, "fopen", c_void_p, c_char_p, c_char_p)
init = bind(util, "xlu_cfg_init", c_void_p, c_void_p, c_char_p)
destroy = bind(util, "xlu_cfg_destroy", None, c_void_p)
readdata = bind(util, "xlu_cfg_readdata", c_int, c_void_p, c_char_p, c_int)
get_string = bind(util, "xlu_cfg_get_string", c_int, c_void_p, c_char_p, ctypes.POINTER(c_char_p), c_int)
get_long = bind(util, "xlu_cfg_get_long", c_int, c_void_p, c_char_p, ctypes.POINTER(c_long), c_int)
get_list = bind(util, "xlu_cfg_get_list", c_int, c_void_p, c_char_p, ctypes.POINTER(c_void_p), ctypes.POINTER(c_int), c_int)
item = bind(util, "xlu_cfg_get_listitem2", c_void_p, c_void_p, c_int)
item_string = bind(util, "xlu_cfg_value_get_string", c_int, c_void_p, c_void_p, ctypes.POINTER(c_char_p), c_int)
item_list = bind(util, "xlu_cfg_value_get_list", c_int, c_void_p, c_void_p, ctypes.POINTER(c_void_p), c_int)
disk_parse = bind(util, "xlu_disk_parse", c_int, c_void_p, c_int, ctypes.POINTER(c_char_p), c_void_p)
disk_init = bind(light, "libxl_device_disk_init", None, c_void_p)
report = fopen(b"/dev/null", b"w")

class Disk(ctypes.Structure):
    _fields_ = [("backend_domid", ctypes.c_uint32), ("backend_domname", c_char_p), ("target", c_char_p), ("vdev", c_char_p),
        ("backend", c_int), ("format", c_int), ("script", c_char_p), ("removable", c_int), ("readwrite", c_int),
        ("cdrom", c_int), ("rest", ctypes.c_char * 4000)]

FORMATS = ["unknown", "qcow", "qcow2", "vhd", "raw", "empty", "qed"]

def text(value):
    return None if value is None else value.decode("latin-1")

def items(config, found):
    result, index = [], 0
    while item(found, index):
        string, inner = c_char_p(), c_void_p()
        if item_string(config, item(found, index), byref(string), 1) == 0:
            result.append(text(string.value))
        else:
            item_list(config, item(found, index), byref(inner), 1)
            result.append(items(config, inner))
        index += 1
    return result

def answer(question):
    config = init(report, b"x")
    try:
        if "disk" in question:
            disk = Disk()
            disk_init(byref(disk))
            specs = (c_char_p * 1)(question["disk"].encode("latin-1"))
            if disk_parse(config, 1, specs, byref(disk)):
                return None
            return [text(disk.target), text(disk.vdev), FORMATS[disk.format], bool(disk.readwrite), bool(disk.cdrom), text(disk.script)]
        data = question["config"].encode("latin-1")
        if readdata(config, data, len(data)):
            return None
        values = {}
        for key in question["keys"]:
            string, number, found, count = c_char_p(), c_long(), c_void_p(), c_int()
            if get_list(config, key.encode(), byref(found), byref(count), 1) == 0:
                values[key] = items(config, found)
            elif get_string(config, key.encode(), byref(string), 1) == 0:
                good = get_long(config, key.encode(), byref(number), 1) == 0
                values[key] = {"text": text(string.value), "number": number.value if good else None}
        return values
    finally:
        destroy(config)

print(json.dumps([answer(question) for question in json.load(sys.stdin)]))
"#;

/// Bytes as characters of the same numbers.
fn latin_1(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

/// A file of xl's, of which these keys are asked for.
pub fn config(bytes: &[u8], keys: &[&str]) -> Value {
    json!({ "config": latin_1(bytes), "keys": keys })
}

/// A disk.
pub fn disk(spec: &str) -> Value {
    json!({ "disk": latin_1(spec.as_bytes()) })
}

/// Text of the library's as ours.
pub fn utf_8(text: &str) -> String {
    let bytes = text
        .chars()
        .map(|c| u8::try_from(u32::from(c)).expect("a byte"))
        .collect();
    String::from_utf8(bytes).expect("UTF-8")
}

/// What the library makes of each of these: null if it does not take it. `None`: the library is not installed.
pub fn ask(questions: &[Value]) -> Option<Vec<Value>> {
    let mut child = Command::new("python3")
        .args(["-c", SCRIPT])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    let mut input = child.stdin.take().expect("a pipe");
    let text = serde_json::to_vec(questions).expect("JSON");
    // It answers at the end, so neither waits for the other.
    drop(input.write_all(&text));
    drop(input);
    let output = child.wait_with_output().expect("python3 ends");
    assert!(output.status.success(), "libxlutil: {}", output.status);
    let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    match answer {
        Value::Array(answers) => Some(answers),
        _ => {
            eprintln!("skipped: libxlutil.so.4.17 is not installed (Debian's package libxenmisc4.17)");
            None
        }
    }
}
