/**
 * An array of uuids in PostgreSQL's binary form. A batch of a thousand runs has some thousand uuids
 * in its parameters; as text, PostgreSQL reads each twice, once as an element and once as digits.
 */

const uuidOid = 2950;
/** Dimensions, a mark for nulls, the type of the elements, their count, and the first index. */
const headerBytes = 20;
const idBytes = 16;
const lengthBytes = 4;
const textLength = 36;
const dash = 45;

/** The digits by their character codes; -1 for other characters. */
const digits = new Int8Array(128).fill(-1);
for (let digit = 0; digit < 16; digit++) {
  digits[digit.toString(16).charCodeAt(0)] = digit;
  digits[digit.toString(16).toUpperCase().charCodeAt(0)] = digit;
}

/** An array of uuids as a parameter: binary, or in its text form, which PostgreSQL checks. */
export function uuidsOf(ids: readonly (string | null | undefined)[]): Buffer | string {
  return uuidArray(ids) ?? `{${ids.map((id) => id ?? "NULL").join(",")}}`;
}

/** Undefined without elements, or if an element is neither a uuid in its usual form nor null. */
export function uuidArray(values: readonly unknown[]): Buffer | undefined {
  if (values.length === 0) return undefined;
  const bytes = Buffer.allocUnsafe(headerBytes + values.length * (lengthBytes + idBytes));
  let at = headerBytes;
  let hasNull = false;
  for (const value of values) {
    if (value === null || value === undefined) {
      hasNull = true;
      at = bytes.writeInt32BE(-1, at);
      continue;
    }
    at = bytes.writeInt32BE(idBytes, at);
    if (typeof value !== "string" || !writeId(value, bytes, at)) return undefined;
    at += idBytes;
  }
  bytes.writeInt32BE(1, 0);
  bytes.writeInt32BE(hasNull ? 1 : 0, 4);
  bytes.writeInt32BE(uuidOid, 8);
  bytes.writeInt32BE(values.length, 12);
  bytes.writeInt32BE(1, 16);
  return hasNull ? bytes.subarray(0, at) : bytes;
}

function writeId(text: string, bytes: Buffer, start: number): boolean {
  if (text.length !== textLength) return false;
  let at = start;
  for (let index = 0; index < textLength; index += 2) {
    if (index === 8 || index === 13 || index === 18 || index === 23) {
      if (text.charCodeAt(index++) !== dash) return false;
    }
    const high = digitOf(text.charCodeAt(index));
    const low = digitOf(text.charCodeAt(index + 1));
    if (high < 0 || low < 0) return false;
    bytes[at++] = high * 16 + low;
  }
  return true;
}

function digitOf(code: number): number {
  return code < 128 ? (digits[code] as number) : -1;
}
