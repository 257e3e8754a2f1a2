/**
 * Messages generated from the .proto files: a valid base, and each field at its limits, beyond
 * them, and with senseless values.
 */
import {
  create,
  type DescField,
  type DescMessage,
  getOption,
  type Message,
  ScalarType,
} from "@bufbuild/protobuf";
import { reflect } from "@bufbuild/protobuf/reflect";
import {
  type FieldRules,
  field as fieldOption,
} from "@bufbuild/protovalidate/gen/buf/validate/validate_pb.js";

export type Mutation = {
  /** The field, and the kind of value. */
  label: string;
  message: Message;
};

const uuid = "0190f5fe-7c00-7a00-8000-000000000001";
const depthMax = 4;

/** Texts that are invalid as names: for a shell, a terminal, a log, a database, a reader. */
export const oddTexts = [
  "",
  "\u0000",
  'a\nb\r\n{"level":60}',
  "\u001b[2J\u001b[31mred",
  "\u202eright to left",
  "😀",
  "' or 1=1; drop table run; --",
  "%s%n%x",
  "../../../etc/passwd",
  "__proto__",
  "�".repeat(3),
];

const moments: [seconds: bigint, nanos: number][] = [
  [0n, 0],
  [-62_135_596_800n, 0],
  [-62_135_596_801n, 0],
  [253_402_300_799n, 999_999_999],
  [253_402_300_800n, 0],
  [9_223_372_036_854_775_807n, 0],
  [-9_223_372_036_854_775_808n, 0],
  [9_007_199_254_740_993n, 0],
  [0n, -1],
  [0n, 1_000_000_000],
  [253_402_300_799n, 2_000_000_000],
  [-62_135_596_800n, -1],
];

const lengths: [seconds: bigint, nanos: number][] = [
  [0n, 0],
  [1n, 0],
  [-1n, 0],
  [0n, 1],
  [1n, -1],
  [1n, 1_000_000_000],
  [9_007_199_254_741n, 999_999_999],
  [9_223_372_036_854_775_807n, 0],
  [315_576_000_000n, 0],
  [315_576_000_001n, 0],
  [-9_223_372_036_854_775_808n, 0],
];

/** Texts for rules with a pattern. */
const formed = ["x", "xx", "x1", "USD", "https://example.com/x", "1.0.0", "#fff"];

/** A valid message: required fields are set, ids are given by field name. */
export function baseOf(desc: DescMessage, ids: Record<string, string>, depth = 0): Message {
  const message = create(desc);
  const into = reflect(desc, message);
  if (depth > depthMax || desc.typeName.startsWith("google.protobuf.")) {
    if (desc.typeName === "google.protobuf.Duration") Object.assign(message, { seconds: 900n });
    if (desc.typeName === "google.protobuf.Timestamp") {
      Object.assign(message, { seconds: BigInt(Math.floor(Date.now() / 1000) - 3_600) });
    }
    return message;
  }
  for (const field of desc.fields) {
    // Of several fields, the first; a rule may require one.
    if (field.oneof && field.oneof.fields[0] !== field) continue;
    if (field.fieldKind === "scalar" || field.fieldKind === "enum") {
      const value = plainValue(field, ids);
      if (value !== undefined) into.set(field, value as never);
    } else if (field.fieldKind === "message") {
      if (field.message.typeName === "google.protobuf.FieldMask") {
        if (rulesOf(field)?.required) assign(message, field, { paths: pathsOf(desc) });
        continue;
      }
      into.set(field, reflect(field.message, baseOf(field.message, ids, depth + 1)) as never);
    } else if (field.fieldKind === "list") {
      assign(message, field, leastItems(field, ids, depth));
    }
  }
  return message;
}

/** The items that a list must have. */
function leastItems(field: DescField & { fieldKind: "list" }, ids: Record<string, string>, depth: number) {
  const rules = rulesOf(field)?.type;
  const count = rules?.case === "repeated" ? Number(rules.value.minItems) : 0;
  return Array.from({ length: count }, () => {
    if (field.listKind === "message") return baseOf(field.message, ids, depth + 1);
    return field.listKind === "enum" ? field.enum.values[1]?.number : "read";
  });
}

/** What an update may change: the fields of its spec, or its own. */
function pathsOf(desc: DescMessage): string[] {
  const spec = desc.fields.find(({ name }) => name === "spec");
  const { fields } = spec?.fieldKind === "message" ? spec.message : desc;
  return fields.map(({ name }) => name).filter((name) => !/(_id|_mask|_version)$/.test(name));
}

function plainValue(field: DescField, ids: Record<string, string>): unknown {
  if (field.fieldKind === "enum") return field.enum.values[1]?.number ?? 0;
  if (field.fieldKind !== "scalar") return undefined;
  const given = ids[field.name];
  if (field.scalar === ScalarType.STRING) {
    const rules = stringRules(field);
    if (given !== undefined && (given !== "" || !rules?.pattern)) return given;
    if (rules?.wellKnown.case === "uuid") return uuid;
    if (/schedule|time_zone|page_token|cursor|order|filter/.test(field.name)) return "";
    if (rules?.wellKnown.case === "uri") return "https://example.com/x";
    if (rules?.wellKnown.case === "email") return "x@example.com";
    if (rules?.pattern) return formed.find((text) => new RegExp(rules.pattern ?? "").test(text)) ?? "";
    return "x".repeat(Number(rules?.minBytes ?? rules?.minLen ?? 0n) || 1);
  }
  if (field.scalar === ScalarType.BOOL) return rulesOf(field)?.type.case === "bool" ? true : undefined;
  if (field.scalar === ScalarType.BYTES) {
    const rules = rulesOf(field)?.type;
    return new Uint8Array(rules?.case === "bytes" ? Number(rules.value.len) : 0);
  }
  const least = numberBounds(field)[0];
  if (least === undefined) return undefined;
  return isLong(field) ? BigInt(least) : Number(least);
}

function rulesOf(field: DescField): FieldRules | undefined {
  return getOption(field, fieldOption);
}

function stringRules(field: DescField) {
  const rules = rulesOf(field);
  return rules?.type.case === "string" ? rules.type.value : undefined;
}

function isLong(field: DescField): boolean {
  return (
    field.fieldKind === "scalar" &&
    [
      ScalarType.INT64,
      ScalarType.UINT64,
      ScalarType.SINT64,
      ScalarType.FIXED64,
      ScalarType.SFIXED64,
    ].includes(field.scalar)
  );
}

/** The bounds in the rules: `gte`, `lte` and the like. */
function numberBounds(field: DescField): bigint[] {
  const rules = rulesOf(field)?.type.value as
    | { greaterThan?: { value?: unknown }; lessThan?: { value?: unknown } }
    | undefined;
  return [rules?.greaterThan?.value, rules?.lessThan?.value]
    .filter((value) => typeof value === "number" || typeof value === "bigint")
    .map((value) => BigInt(Math.trunc(Number(value))));
}

/** The values for a field, in the form of a message. */
function valuesOf(field: DescField): [label: string, value: unknown][] {
  switch (field.fieldKind) {
    case "enum":
      return [0, 1, 999, -1, 2_147_483_647].map((value) => [String(value), value]);
    case "scalar":
      return scalarValues(field);
    case "message":
      return messageValues(field.message);
    case "list":
      return listValues(field);
    case "map":
      return [
        [
          "1,000 entries",
          Object.fromEntries(Array.from({ length: 1_000 }, (_, index) => [`k${index}`, "v"])),
        ],
        ["a key that is odd", { "\u001b[31m\n": "v" }],
        ["__proto__", JSON.parse('{"__proto__": "v", "constructor": "w"}')],
      ].filter(() => field.mapKind === "scalar" && field.scalar === ScalarType.STRING) as [string, unknown][];
  }
}

function scalarValues(field: DescField & { fieldKind: "scalar" }): [string, unknown][] {
  if (field.scalar === ScalarType.STRING) {
    const rules = stringRules(field);
    const max = Number(rules?.maxBytes ?? rules?.maxLen ?? 0n) || 1_000;
    return [
      ...oddTexts.map((text): [string, string] => [JSON.stringify(text).slice(0, 30), text]),
      ["as long as it may be", "x".repeat(max)],
      ["one longer", "x".repeat(max + 1)],
      ["as long in bytes of two", "é".repeat(Math.floor(max / 2))],
      ["a million", "x".repeat(1_000_000)],
    ];
  }
  if (field.scalar === ScalarType.BYTES) {
    return [0, 1, 32_768, 32_769, 1_000_000].map((size) => [`${size} bytes`, new Uint8Array(size).fill(255)]);
  }
  if (field.scalar === ScalarType.BOOL) {
    return [
      ["true", true],
      ["false", false],
    ];
  }
  if (field.scalar === ScalarType.DOUBLE || field.scalar === ScalarType.FLOAT) {
    return [0, -1, Number.NaN, Number.POSITIVE_INFINITY, -0].map((value) => [String(value), value]);
  }
  const isUnsigned = field.scalar === ScalarType.UINT32 || field.scalar === ScalarType.UINT64;
  const bits = isLong(field) ? 64n : 32n;
  const [least, most] = isUnsigned ? [0n, 2n ** bits - 1n] : [-(2n ** (bits - 1n)), 2n ** (bits - 1n) - 1n];
  const around = numberBounds(field).flatMap((bound) => [bound - 1n, bound, bound + 1n]);
  return [0n, 1n, -1n, least, most, ...around]
    .filter((value) => value >= least && value <= most)
    .map((value) => [String(value), isLong(field) ? value : Number(value)]);
}

function messageValues(desc: DescMessage): [string, unknown][] {
  if (desc.typeName === "google.protobuf.Timestamp") {
    return moments.map(([seconds, nanos]) => [`${seconds}s ${nanos}ns`, { seconds, nanos }]);
  }
  if (desc.typeName === "google.protobuf.Duration") {
    return lengths.map(([seconds, nanos]) => [`${seconds}s ${nanos}ns`, { seconds, nanos }]);
  }
  if (desc.typeName === "google.protobuf.FieldMask") {
    return [["*"], [""], ["no.such.path"], ["__proto__"], ["spec", "spec"], Array(5_000).fill("name")].map(
      (paths) => [String(paths).slice(0, 20), { paths }],
    );
  }
  if (desc.typeName === "google.protobuf.Struct") return structs;
  return [["empty", {}]];
}

/** Nested, wide, odd. */
const structs: [string, unknown][] = [
  ["empty", {}],
  ["90 deep", nested(40)],
  ["odd keys", { "": 1, "\u0000": 2, __proto__x: 3, "\u001b[31m": 4 }],
  ["10,000 keys", Object.fromEntries(Array.from({ length: 10_000 }, (_, index) => [`k${index}`, index]))],
  ["numbers", { huge: 1e308, tiny: 5e-324, list: Array(1_000).fill(1.1) }],
];

/** An object within an object, so many times. */
function nested(depth: number): object {
  let value: object = { end: true };
  for (let level = 0; level < depth; level += 1) value = { in: value };
  return value;
}

function listValues(field: DescField & { fieldKind: "list" }): [string, unknown][] {
  const rules = rulesOf(field)?.type;
  const max = rules?.case === "repeated" ? Number(rules.value.maxItems || 100n) : 100;
  const item =
    field.listKind === "scalar"
      ? field.scalar === ScalarType.STRING
        ? "x"
        : 1
      : field.listKind === "enum"
        ? 1
        : {};
  return [
    ["none", []],
    ["as many as may be", Array(max).fill(item)],
    ["one more", Array(max + 1).fill(item)],
    ["100,000", Array(100_000).fill(item)],
    ...(typeof item === "string"
      ? oddTexts.map((text): [string, unknown] => [JSON.stringify(text).slice(0, 30), [text]])
      : []),
    ...(field.listKind === "enum" ? [["unknown", [999]] as [string, unknown]] : []),
  ];
}

/**
 * Each field of a message, one at a time, with each value of `valuesOf`; the other fields keep the
 * base's values.
 */
export function* mutationsOf(desc: DescMessage, ids: Record<string, string>, depth = 0): Generator<Mutation> {
  if (depth > depthMax || desc.typeName.startsWith("google.protobuf.")) return;
  for (const field of desc.fields) {
    for (const [label, value] of valuesOf(field)) {
      const message = baseOf(desc, ids, depth);
      assign(message, field, value);
      yield { label: `${field.name}: ${label}`, message };
    }
    const within = messageWithin(field);
    if (within === undefined) continue;
    for (const inner of mutationsOf(within, ids, depth + 1)) {
      const message = baseOf(desc, ids, depth);
      assign(message, field, field.fieldKind === "list" ? [inner.message] : inner.message);
      yield { label: `${field.name}.${inner.label}`, message };
    }
  }
}

/** The messages of a field: of its own, or the items of its list. */
function messageWithin(field: DescField): DescMessage | undefined {
  if (field.fieldKind === "message") return field.message;
  return field.fieldKind === "list" && field.listKind === "message" ? field.message : undefined;
}

/** In the form of generated code: a oneof holds its case. */
function assign(message: Message, field: DescField, value: unknown): void {
  const target = message as unknown as Record<string, unknown>;
  const needsCreate = field.fieldKind === "message" && field.message.typeName !== "google.protobuf.Struct";
  const made = needsCreate ? create(field.message, value as Record<string, unknown>) : value;
  const items =
    field.fieldKind === "list" && field.listKind === "message"
      ? (value as Record<string, unknown>[]).map((item) =>
          "$typeName" in item ? item : create(field.message, item),
        )
      : made;
  if (field.oneof) target[field.oneof.localName] = { case: field.localName, value: items };
  else target[field.localName] = items;
}
