/** The patterns of the .proto files, as the server matches them. */
import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { StartTurnRequestSchema } from "#gen/pinion/v1/turn_pb.js";
import { checkMessage } from "../../../../src/server/access/interceptors/validate.ts";

const refusal = (init: object) =>
  checkMessage(
    StartTurnRequestSchema,
    create(StartTurnRequestSchema, { messageId: "m", input: "i", ...init }),
  );

test("a pattern is about the whole text, and counts characters of any script, not halves of them", () => {
  for (const userId of ["", "ada", "Ünal Ö.", "山田 太郎", "𝒳".repeat(60), "a".repeat(128)])
    expect(refusal({ userId }), userId).toBeUndefined();
  for (const userId of ["ada\n", "\u0000", "a\tb", "a".repeat(129)])
    expect(refusal({ userId }), JSON.stringify(userId)).toMatchObject({ field: "user_id" });
  expect(refusal({ agentId: "ada-1" })).toBeUndefined();
  for (const agentId of ["Ada", "-ada", "ada\n", "ada\nb", "ädä"])
    expect(refusal({ agentId }), agentId).toMatchObject({ field: "agent_id" });
});
