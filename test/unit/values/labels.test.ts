import { expect, test } from "vitest";
import { factsOf, labelProblem } from "../../../src/values/labels.ts";

test.each(["gpu", "team=web", "a", "9", "eu-west.1/rack_2", "x".repeat(63)])("%s is a label", (text) => {
  expect(labelProblem(text)).toBeUndefined();
});

test.each(["", "GPU", "-a", "a b", "x".repeat(64), "a:b", "größe", "a\0", "a\n"])(
  "%j is no label",
  (text) => {
    expect(labelProblem(text)).toMatch(/is no label: 1 to 63/);
  },
);

test("a label that devices report is refused with what to do instead", () => {
  expect(labelProblem("has:codex")).toMatch(/configure the executor/);
  expect(labelProblem("workspace:web")).toMatch(/configure the executor or workspace/);
});

test("a device reports what it can use, and nothing that is broken", () => {
  const facts = factsOf({
    os: "macos",
    machine: { arch: "aarch64" },
    agent_kinds: ["codex", "claude-code", "sh"],
    executors: [{ kind: "codex", problem: "not found" }, { kind: "sh" }],
    workspaces: [{ name: "web" }, { name: "gone", problem: "no such folder" }],
    labels: ["gpu"],
  });
  expect(facts).toEqual({
    os: "macos",
    arch: "arm64",
    labels: ["gpu", "has:claude-code", "has:sh", "workspace:web"],
  });
});
