import { type DescMessage, type MessageShape, toJson } from "@bufbuild/protobuf";
import type { Cli } from "../cli.ts";

/**
 * The message as proto3 JSON with the names of the .proto files. Fields without presence are always
 * written: an empty list is `[]`.
 */
export function asJson<Desc extends DescMessage>(schema: Desc, message: MessageShape<Desc>): unknown {
  return toJson(schema, message, { useProtoFieldName: true, alwaysEmitImplicit: true });
}

/** Prints a JSON document: the message, and further members. */
export function printJson<Desc extends DescMessage>(
  cli: Cli,
  schema: Desc,
  message: MessageShape<Desc>,
  beside: Record<string, unknown> = {},
): void {
  cli.out(JSON.stringify({ ...(asJson(schema, message) as object), ...beside }, null, 2));
}

/** Prints a line of JSON, for streams. */
export function printJsonLine<Desc extends DescMessage>(
  cli: Cli,
  schema: Desc,
  message: MessageShape<Desc>,
): void {
  cli.out(JSON.stringify(asJson(schema, message)));
}
