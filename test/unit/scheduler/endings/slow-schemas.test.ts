/** Schemas whose check would take for ever stop no replica and no daemon. */
import { expect, test } from "vitest";
import { checkAnswer } from "../../../../clients/ts/src/agents/structured.ts";
import { problemsOf } from "../../../../src/scheduler/endings/answers.ts";
import { inTime } from "../../../../src/time/bounded.ts";

/** References that fork: 2^40 checks of a few hundred bytes. */
const forking = {
  $ref: "#/$defs/n0",
  $defs: Object.fromEntries(
    Array.from({ length: 40 }, (_, index) => {
      const next = { $ref: `#/$defs/n${index + 1}` };
      return [`n${index}`, index === 39 ? { type: "number" } : { anyOf: [next, next] }];
    }),
  ),
};
const schemas: [string, object][] = [
  ["a pattern that goes back", { type: "string", pattern: "^(a+)+$" }],
  ["references that fork", forking],
];
const answer = `${"a".repeat(60)}!`;
/** The limits are 50 and 500 ms; the rest is room for a busy machine. */
const patienceMs = 5_000;

test.each(schemas)(
  "%s: the replica goes on, the answer has a problem, and the schema costs its time once",
  (_, schema) => {
    const startedAt = performance.now();
    expect(problemsOf(answer, schema)).toContain("takes more than 50 ms");
    expect(performance.now() - startedAt).toBeLessThan(patienceMs);
    const again = performance.now();
    for (let count = 0; count < 100; count++) expect(problemsOf(answer, schema)).toContain("takes more than");
    expect(performance.now() - again).toBeLessThan(1_000);
  },
);

test.each(schemas)("%s: the daemon goes on, and the answer has a problem", (_, schema) => {
  const startedAt = performance.now();
  const checked = checkAnswer(schema as never, { structured: answer, text: "" });
  expect(checked).toMatchObject({
    isValid: false,
    problem: expect.stringMatching(/takes more than 500 ms|cannot be used/),
  });
  expect(performance.now() - startedAt).toBeLessThan(patienceMs);
});

test("an ordinary answer is checked as before, and an error of the check passes", () => {
  const schema = { type: "object", properties: { n: { type: "number" } }, required: ["n"] };
  expect(problemsOf({ n: 1 }, schema)).toBeUndefined();
  expect(problemsOf({ n: "x" }, schema)).toContain("/n: ");
  expect(checkAnswer(schema as never, { structured: { n: 1 }, text: "" })).toMatchObject({ isValid: true });
  expect(problemsOf(1, { $ref: "#" })).toContain("does not end");
  expect(problemsOf("x", { type: "string", pattern: "(" })).toBeUndefined();
  expect(() =>
    inTime(1_000, () => {
      throw new Error("its own");
    }),
  ).toThrow("its own");
});

test("work that waits for the processor is starved, not late, and its schema stays good", () => {
  const waiting = new Int32Array(new SharedArrayBuffer(4));
  expect(inTime(50, () => Atomics.wait(waiting, 0, 0, 200) && loop(10))).toBe("starved");
  // On a busy machine the loop itself may wait for the processor.
  let judged = inTime(50, () => loop(10_000));
  for (let tries = 1; judged === "starved" && tries < 20; tries++) judged = inTime(50, () => loop(10_000));
  expect(judged).toBe("late");
});

/** Uses the processor for so many milliseconds. */
function loop(ms: number): number {
  const { user } = process.threadCpuUsage();
  let turns = 0;
  while (process.threadCpuUsage().user - user < ms * 1_000) turns++;
  return turns;
}

test("an answer with thousands of mistakes is told in a moment, and costs its schema nothing", () => {
  const schema = { items: { type: "number" }, maxItems: 1_000_000 };
  const startedAt = performance.now();
  let isSlow = false;
  for (const count of [3_000, 20_000, 60_000]) {
    const wrong: unknown[] = Array(count).fill("x");
    const problems = problemsOf(wrong, schema);
    expect(problems).toMatch(/Expected "number"|takes more than/);
    isSlow ||= problems?.includes("takes more than") ?? false;
    expect(checkAnswer(schema as never, { structured: wrong, text: "" })).toMatchObject({ isValid: false });
  }
  expect(performance.now() - startedAt).toBeLessThan(patienceMs);
  // On a busy machine the largest may take too long, and that is remembered.
  if (!isSlow) expect(problemsOf([1, 2], schema)).toBeUndefined();
});

test("a text of fences, blank lines or brackets is searched for JSON in a moment", () => {
  const texts = [
    `\`\`\`${"\n".repeat(100_000)}`,
    "```a \n".repeat(50_000),
    "[".repeat(100_000),
    "`".repeat(200_000),
  ];
  const startedAt = performance.now();
  for (const text of texts) expect(checkAnswer({}, { text })).toMatchObject({ isValid: false });
  const deep = `${"[".repeat(100_000)}${"]".repeat(100_000)}`;
  expect(checkAnswer({}, { text: deep })).toMatchObject({
    problem: expect.stringContaining("nested deeper than 30"),
  });
  expect(checkAnswer({}, { structured: JSON.parse(deep), text: "" })).toMatchObject({ isValid: false });
  expect(performance.now() - startedAt).toBeLessThan(patienceMs);
  const spoken = 'Not {this}.\n```json\n{"a": 1}\n```\nBut:\n\n  ```\n  [2]\n  ``` \nAnd so on {.';
  expect(checkAnswer({}, { text: spoken })).toEqual({ isValid: true, value: [2] });
});
