/**
 * Text that is not valid UTF-8. The library that decodes messages ends the stream at such text, and
 * a device would send the same completion again for ever. Here the text is decoded all the same and
 * marked, so that checkMessage refuses the message like any message that breaks a rule, on every
 * transport.
 */
import type { DescMessage, MessageShape } from "@bufbuild/protobuf";
import { type ReflectMessage, reflect } from "@bufbuild/protobuf/reflect";
import { configureTextEncoding, getTextEncoding } from "@bufbuild/protobuf/wire";

/** Half of a surrogate pair: decoding valid UTF-8 never yields half a pair. */
const mark = "\udfff";
/** Whether the process has ever decoded such text: until then messages are not searched. */
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

/** Whether a decoded text was not valid UTF-8. */
export function isBadText(text: string): boolean {
  return text.endsWith(mark);
}

/** The path of a message's first invalid UTF-8 text, in proto names; undefined for none. */
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
      if (typeof item === "string" && isBadText(item)) return name;
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
