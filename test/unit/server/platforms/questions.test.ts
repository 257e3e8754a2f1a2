/** Messages in a chat that answer an agent's question. */
import { expect, test } from "vitest";
import { chosenBy } from "../../../../src/server/platforms/questions.ts";

const options = [
  { id: "allow", label: "Yes, push" },
  { id: "deny", label: "No" },
  { id: "option-3", label: "No, never" },
  { id: "été", label: "" },
];

test.each([
  ["Yes, push", "allow"],
  ["  yes, PUSH!! ", "allow"],
  ["allow", "allow"],
  ["1", "allow"],
  ["2.", "deny"],
  ["no", "deny"],
  ["No, never.", "option-3"],
  ["ÉTÉ", "été"],
])("%j chooses %s", (message, optionId) => {
  expect(chosenBy(message, options, false)).toEqual({ optionId, text: "" });
});

test.each(["", "maybe", "nobody", "no idea", "yes", "12", "0", "5", "1 more thing", "2) and then?", "ete"])(
  "%j is no answer to a question that takes no text",
  (message) => {
    expect(chosenBy(message, options, false)).toBeUndefined();
  },
);

test("words behind a name are text for the agent, where the question takes text", () => {
  const chosen = (message: string) => chosenBy(message, options, true);
  expect(chosen("No: the tests are red")).toEqual({ optionId: "deny", text: "the tests are red" });
  expect(chosen("no, never\nagain")).toEqual({ optionId: "option-3", text: "again" });
  expect(chosen("1 more thing")).toBeUndefined();
  expect(chosen("nobody knows")).toBeUndefined();
  expect(chosen(`allow ${"é".repeat(5_000)}`)?.text.length).toBeLessThan(1_400);
});

test("a name that two options share chooses neither; their numbers do", () => {
  const twins = [
    { id: "a", label: "Go" },
    { id: "b", label: "go" },
  ];
  expect(chosenBy("go", twins, false)).toBeUndefined();
  expect(chosenBy("2", twins, false)).toEqual({ optionId: "b", text: "" });
});
