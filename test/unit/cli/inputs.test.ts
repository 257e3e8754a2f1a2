import { toJson } from "@bufbuild/protobuf";
import { ValueSchema } from "@bufbuild/protobuf/wkt";
import { expect, test } from "vitest";
import { inputOf } from "../../../src/cli/commands/watchers/watcher-spec.ts";

test("an id with more digits than a number keeps is given as a text", () => {
  const input = inputOf({ input: '{"id": 9007199254740993, "count": 3}' });
  expect(toJson(ValueSchema, input!)).toEqual({ id: "9007199254740993", count: 3 });
});
