"""The scripts that read and write localStorage and IndexedDB in a page of their origin.

Records of IndexedDB have Playwright's format: ``value`` for a value that JSON can hold, ``valueEncoded``
for any other (see ``_ENCODE``: an object with a one-letter key for each kind; ``id`` and ``ref`` for
objects that are used twice).  All text crosses the websocket as JSON in ASCII or
as well-formed JSON, so that lone surrogates survive.
"""

from __future__ import annotations

_ARRAYS = """
const arrays = {
  i8: Int8Array, ui8: Uint8Array, ui8c: Uint8ClampedArray, i16: Int16Array, ui16: Uint16Array,
  i32: Int32Array, ui32: Uint32Array, f32: Float32Array, f64: Float64Array,
  bi64: BigInt64Array, bui64: BigUint64Array,
};
const kindOf = value => Object.prototype.toString.call(value).slice(8, -1);
const finished = request => new Promise((resolve, reject) => {
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});
"""

_ENCODE = """
const toBase64 = bytes => {
  const parts = [];
  for (let start = 0; start < bytes.length; start += 32768)
    parts.push(String.fromCharCode(...bytes.subarray(start, start + 32768)));
  return btoa(parts.join(""));
};
const isPlain = (value, seen) => {
  if (value === null || typeof value === "string" || typeof value === "boolean") return true;
  if (typeof value === "number") return Number.isFinite(value) && !Object.is(value, -0);
  const kind = kindOf(value);
  if (typeof value !== "object" || (kind !== "Object" && kind !== "Array")) return false;
  if (seen.has(value)) return false;
  seen.add(value);
  if (kind === "Object") return Object.values(value).every(item => isPlain(item, seen));
  for (let index = 0; index < value.length; index++)
    if (!isPlain(value[index], seen)) return false;
  return Object.keys(value).length === value.length;
};
const encode = (value, seen, lost) => {
  if (value === null) return {v: "null"};
  switch (typeof value) {
    case "string": case "boolean": return value;
    case "bigint": return {bi: String(value)};
    case "number":
      return Number.isFinite(value) && !Object.is(value, -0) ? value
        : {v: Object.is(value, -0) ? "-0" : String(value)};
    case "object": break;
    default: return {v: "undefined"};
  }
  const kind = kindOf(value);
  if (value instanceof Error) return {e: {n: value.name, m: value.message, s: value.stack || ""}};
  if (kind === "Date") return {d: value.toJSON()};
  if (kind === "RegExp") return {r: {p: value.source, f: value.flags}};
  for (const [name, type] of Object.entries(arrays))
    if (kind === type.name) {
      const bytes = new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
      return {ta: {b: toBase64(bytes), k: name}};
    }
  if (kind === "ArrayBuffer") return {ab: {b: toBase64(new Uint8Array(value))}};
  if (seen.has(value)) return {ref: seen.get(value)};
  const id = seen.size + 1;
  seen.set(value, id);
  const inner = item => encode(item, seen, lost);
  if (kind === "Map") return {m: [...value].map(([k, v]) => ({k: inner(k), v: inner(v)})), id};
  if (kind === "Set") return {s: [...value].map(inner), id};
  if (kind === "Array") return {a: Array.from(value, inner), id};
  const names = ["Object", "Boolean", "Number", "String"].includes(kind) ? Object.keys(value) : [];
  if (kind !== "Object") lost[kind] = (lost[kind] || 0) + 1;
  return {o: names.map(name => ({k: name, v: inner(value[name])})), id};
};
"""

_DECODE = """
const fromBase64 = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
const decode = (given, seen) => {
  if (given === undefined || given === null || typeof given !== "object") return given;
  if ("ref" in given) return seen.get(given.ref);
  if ("v" in given)
    return {null: null, NaN: NaN, Infinity: Infinity, "-Infinity": -Infinity, "-0": -0}[given.v];
  if ("d" in given) return new Date(given.d === null ? NaN : given.d);
  if ("u" in given) return String(given.u);
  if ("bi" in given) return BigInt(given.bi);
  if ("e" in given) {
    const types = {EvalError, RangeError, ReferenceError, SyntaxError, TypeError, URIError};
    const error = new (types[given.e.n] || Error)(given.e.m);
    error.stack = given.e.s;
    return error;
  }
  if ("r" in given) return new RegExp(given.r.p, given.r.f);
  if ("ta" in given) return new arrays[given.ta.k](fromBase64(given.ta.b).buffer);
  if ("ab" in given) return fromBase64(given.ab.b).buffer;
  const keep = value => (seen.set(given.id, value), value);
  if ("a" in given) {
    const list = keep([]);
    for (const item of given.a) list.push(decode(item, seen));
    return list;
  }
  if ("m" in given) {
    const map = keep(new Map());
    for (const {k, v} of given.m) map.set(decode(k, seen), decode(v, seen));
    return map;
  }
  if ("s" in given) {
    const set = keep(new Set());
    for (const item of given.s) set.add(decode(item, seen));
    return set;
  }
  const object = keep({});
  for (const {k, v} of given.o || [])
    Object.defineProperty(object, k, {
      value: decode(v, seen), writable: true, enumerable: true, configurable: true,
    });
  return object;
};
"""

COLLECT = f"""async withDatabases => {{
{_ARRAYS}{_ENCODE}
const lost = {{}};
const keyPaths = path => Array.isArray(path) || (path && typeof path === "object")
  ? {{keyPathArray: [...path]}} : path === null ? {{}} : {{keyPath: path}};
const stored = (name, value) => isPlain(value, new Set())
  ? {{[name]: value}} : {{[name + "Encoded"]: encode(value, new Map(), lost)}};
const collectStore = async store => {{
  const [keys, values] = await Promise.all([finished(store.getAllKeys()), finished(store.getAll())]);
  const records = values.map((value, index) => ({{
    ...(store.keyPath === null ? stored("key", keys[index]) : {{}}), ...stored("value", value),
  }}));
  const indexes = [...store.indexNames].map(name => store.index(name)).map(index => ({{
    name: index.name, ...keyPaths(index.keyPath), multiEntry: index.multiEntry, unique: index.unique,
  }}));
  return {{
    name: store.name, records, indexes, autoIncrement: store.autoIncrement, ...keyPaths(store.keyPath),
  }};
}};
const collectDatabase = async found => {{
  const database = await finished(indexedDB.open(found.name));
  try {{
    const names = [...database.objectStoreNames];
    const transaction = names.length ? database.transaction(names, "readonly") : null;
    const stores = await Promise.all(names.map(name => collectStore(transaction.objectStore(name))));
    return {{name: database.name, version: database.version, stores}};
  }} finally {{ database.close(); }}
}};
try {{
  const result = {{localStorage: []}};
  for (let index = 0; index < localStorage.length; index++) {{
    const name = localStorage.key(index);
    result.localStorage.push({{name, value: localStorage.getItem(name)}});
  }}
  if (withDatabases) {{
    result.indexedDB = [];
    for (const found of await indexedDB.databases()) result.indexedDB.push(await collectDatabase(found));
  }}
  return JSON.stringify({{origin: location.origin, storage: result, lost}});
}} catch (error) {{ return JSON.stringify({{origin: location.origin, error: error.name}}); }}
}}"""
"""A function; its parameter says whether IndexedDB is wanted.  Returns JSON: ``storage``, and in
``lost`` how many values of which kinds (Blob, CryptoKey) have lost their content; or ``error``, the name
of an exception."""

RESTORE_LOCAL = """(text, isFirst) => {
try {
  if (isFirst) localStorage.clear();
  for (const [name, value] of JSON.parse(text)) localStorage.setItem(name, value);
  return JSON.stringify({origin: location.origin, error: ""});
} catch (error) { return JSON.stringify({origin: location.origin, error: error.name}); }
}"""
"""A function: its parameters are pairs of name and value as JSON, and whether they are the first."""

RESTORE_DATABASE = f"""async text => {{
{_ARRAYS}{_DECODE}
const given = JSON.parse(text);
const pathOf = item => item.keyPathArray || (item.keyPath === undefined ? null : item.keyPath);
try {{
  await finished(indexedDB.deleteDatabase(given.name));
  const request = indexedDB.open(given.name, given.version);
  request.onupgradeneeded = () => {{
    for (const item of given.stores || []) {{
      const parameters = {{autoIncrement: Boolean(item.autoIncrement), keyPath: pathOf(item)}};
      const store = request.result.createObjectStore(item.name, parameters);
      for (const one of item.indexes || [])
        store.createIndex(one.name, pathOf(one), {{unique: one.unique, multiEntry: one.multiEntry}});
    }}
  }};
  const database = await finished(request);
  try {{
    const stores = (given.stores || []).filter(item => (item.records || []).length);
    if (stores.length) {{
      const transaction = database.transaction(stores.map(item => item.name), "readwrite");
      const ended = new Promise((resolve, reject) => {{
        transaction.oncomplete = resolve;
        transaction.onabort = () => reject(transaction.error || new DOMException("", "AbortError"));
      }});
      try {{
        for (const item of stores) {{
          const store = transaction.objectStore(item.name);
          for (const record of item.records) {{
            const value = "value" in record ? record.value : decode(record.valueEncoded, new Map());
            if (store.keyPath !== null) store.put(value);
            else store.put(value, "key" in record ? record.key : decode(record.keyEncoded, new Map()));
          }}
        }}
      }} catch (error) {{
        transaction.abort();
        await ended.catch(() => 0);
        throw error;
      }}
      await ended;
    }}
  }} finally {{ database.close(); }}
  return JSON.stringify({{origin: location.origin, error: ""}});
}} catch (error) {{ return JSON.stringify({{origin: location.origin, error: error.name}}); }}
}}"""
"""A function: its parameter is one database of Playwright's ``indexedDB`` as JSON.  A database of that
name is replaced."""

__all__ = ["COLLECT", "RESTORE_DATABASE", "RESTORE_LOCAL"]
