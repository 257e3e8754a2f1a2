import { create } from "@bufbuild/protobuf";
import { AttentionReason, ToolStatus } from "#gen/pinion/v1/activity_pb.js";
import { type Completion, CompletionSchema, Outcome } from "#gen/pinion/v1/device_pb.js";

/** A completion with everything that an agent's executor tells. */
export function richCompletion(
  attempt: { workId: string; attemptToken: string },
  told: { output: string; resultText: string },
): Completion {
  const { workId, attemptToken } = attempt;
  const call = {
    ...{ id: "t1", name: "Read", title: "Read parser.ts" },
    ...{ status: ToolStatus.COMPLETED, result: "line 10" },
  };
  return create(CompletionSchema, {
    ...{ workId, attemptToken, outcome: Outcome.COMPLETED },
    structured: JSON.stringify({ severity: 3, findings: [{ file: "parser.ts", lines: 12 }] }),
    usage: { inputTokens: 1_200n, outputTokens: 80n, costMicros: 4_200n, currency: "USD" },
    modelUsed: "model-x",
    attention: [AttentionReason.MAX_TURNS],
    denials: [{ tool: "Bash", input: "git push", reason: "not pre-approved" }],
    transcript: {
      entries: [
        { sequence: 1n, body: { case: "text", value: { text: "I look at the parser." } } },
        { sequence: 2n, body: { case: "toolCall", value: call } },
      ],
    },
    ...told,
  });
}
