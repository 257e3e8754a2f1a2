import fc from "fast-check";
import { parse } from "smol-toml";
import { expect, test } from "vitest";
import { tomlText } from "../../../../src/cli/apply/toml-text.ts";
import { escaped, substitute } from "../../../../src/cli/apply/variables.ts";

const value = (text: string, env: Record<string, string> = {}) => substitute({ text }, env).value;

test("a variable is a whole value or a part of one, and two dollar signs are one", () => {
  const env = { A: "1", A_B: "2" };
  expect(value("$A", env)).toEqual({ text: "1" });
  expect(value(`x-$A_B-\${A}y`, env)).toEqual({ text: "x-2-1y" });
  expect(value("$$A costs $5, ^x$", env)).toEqual({ text: "$A costs $5, ^x$" });
  expect(value(`\${not a name}`, env)).toEqual({ text: `\${not a name}` });
});

test("a variable's value is taken as it is, so references cannot go in a circle", () => {
  expect(value("$A", { A: "$B", B: "$A" })).toEqual({ text: "$B" });
});

test("variables of the program's own objects are not the environment's", () => {
  expect(substitute({ text: "$constructor" }, {}).missing).toHaveLength(1);
});

test("what the file says is kept for where a variable went, and only there", () => {
  const { templates } = substitute({ list: ["a", "k=$A"] }, { A: "secret" });
  expect([...templates]).toEqual([['["list",1]', "k=$A"]]);
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
