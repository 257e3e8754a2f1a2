/**
 * Text that is not valid UTF-8. The library that reads messages ends a stream for it, and a device would send the same
 * completion again for ever. Here such text is read all the same and marked, so that the message is turned down as any other
 * that breaks a rule: by checkMessage, on every transport.
 */
import type { DescMessage, MessageShape } from "@bufbuild/protobuf";
import { type ReflectMessage, reflect } from "@bufbuild/protobuf/reflect";
import { configureTextEncoding, getTextEncoding } from "@bufbuild/protobuf/wire";

/** Half of a surrogate pair: no text that was read from valid UTF-8 has one. */
const mark = "\udfff";
/** Whether such text was ever read by this process: until then no message is searched for it. */
let isSeen = false;

const { encodeUtf8, checkUtf8, encodeUtf8Into, decodeUtf8 } = getTextEncoding();
configureTextEncoding({
  ...{ encodeUtf8, checkUtf8, encodeUtf8Into },
  decodeUtf8(bytes: Uint8Array, strict?: boolean) {
    if (!strict) return decodeUtf8(bytes);
    try {
      return decodeUtf8(bytes, true);
    } catch {
      isSeen = true;
      return decodeUtf8(bytes) + mark;
    }
  },
});

/** The path of the first text of a message that was not valid UTF-8, in proto names; undefined if there is none. */
export function findBadText<Desc extends DescMessage>(
  schema: Desc,
  message: MessageShape<Desc>,
): string | undefined {
  return isSeen ? search(reflect(schema, message, false), "") : undefined;
}

function search(message: ReflectMessage, path: string): string | undefined {
  for (const field of message.fields) {
    if (!message.isSet(field)) continue;
    const name = path === "" ? field.name : `${path}.${field.name}`;
    const value: unknown = message.get(field);
    const items: Iterable<unknown> =
      field.fieldKind === "list"
        ? (value as Iterable<unknown>)
        : field.fieldKind === "map"
          ? [...(value as Iterable<[unknown, unknown]>)].flat()
          : [value];
    for (const item of items) {
      if (typeof item === "string" && item.endsWith(mark)) return name;
      if (isReflected(item)) {
        const found = search(item, name);
        if (found !== undefined) return found;
      }
    }
  }
  return undefined;
}

function isReflected(value: unknown): value is ReflectMessage {
  return typeof value === "object" && value !== null && "desc" in value && "fields" in value;
}
