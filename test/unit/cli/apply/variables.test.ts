import fc from "fast-check";
import { parse } from "smol-toml";
import { expect, test } from "vitest";
import { tomlText } from "../../../../src/cli/apply/file/toml-text.ts";
import { escaped, substitute } from "../../../../src/cli/apply/file/variables.ts";

const value = (text: string, env: Record<string, string> = {}) => substitute({ text }, env).value;

test("a variable is replaced where it is the whole value, and two dollar signs are one", () => {
  const env = { A: "1", A_B: "2" };
  expect(value("$A", env)).toEqual({ text: "1" });
  expect(value(`\${A_B}`, env)).toEqual({ text: "2" });
  expect(value(`x-$A_B-\${A}y`, env)).toEqual({ text: `x-$A_B-\${A}y` });
  expect(value(" $A", env)).toEqual({ text: " $A" });
  expect(value("$A\n", env)).toEqual({ text: "$A\n" });
  expect(value("$$A", env)).toEqual({ text: "$A" });
  expect(value("$$A costs $5, ^x$", env)).toEqual({ text: "$A costs $5, ^x$" });
  expect(value(`\${not a name}`, env)).toEqual({ text: `\${not a name}` });
});

test("a variable's value is taken as it is, so references cannot go in a circle", () => {
  expect(value("$A", { A: "$B", B: "$A" })).toEqual({ text: "$B" });
});

test("variables of the program's own objects are not the environment's", () => {
  expect(substitute({ text: "$constructor" }, {}).missing).toHaveLength(1);
});

test("a reference with text around it is kept, and listed with its place", () => {
  const { literal, missing, templates } = substitute({ list: ["a", `Bearer $A, $$5 or \${B}`] }, { A: "s" });
  expect(literal).toEqual([
    { path: ["list", 1], reference: "$A" },
    { path: ["list", 1], reference: `\${B}` },
  ]);
  expect(missing).toEqual([]);
  expect(templates.size).toBe(0);
});

test("a template has its references replaced wherever they stand", () => {
  const tree = { prompt: `x-$A-\${A}y $$A` };
  const { value, literal } = substitute(tree, { A: "1" }, { isTemplate: () => true });
  expect(value).toEqual({ prompt: "x-1-1y $A" });
  expect(literal).toEqual([]);
});

test("what the file says is kept for where a variable went, and only there", () => {
  const { templates } = substitute({ list: ["a", "$A"] }, { A: "secret" });
  expect([...templates]).toEqual([['["list",1]', "$A"]]);
});

test("any text that pull writes is read back as it was", () => {
  const characters = fc.constantFrom(..."$${}AZ\"\\'\n\r\t # =é\u0001\u007f\u0085");
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.string({ unit: characters })), (text) => {
      const written = parse(`text = ${tomlText(escaped(text))}`);
      expect(substitute(written, {}).value).toEqual({ text });
    }),
    { numRuns: 2_000 },
  );
});
