/** Arrays as parameters: each element arrives unchanged, at its place. */
import { randomUUID } from "node:crypto";
import { sql } from "kysely";
import { expect, test } from "vitest";
import { unnest } from "../../../src/store/pg/values/unnest.ts";
import { useDatabase } from "../../support/database.ts";

const database = useDatabase();

const id = "018f0000-0000-7000-8000-000000000001";
type Item = {
  name: string | null;
  id: string | null;
  at: Date | null;
  count: number | null;
  isOn: boolean | null;
  data: unknown;
};
const item: Item = {
  name: "plain",
  id,
  at: new Date("2026-01-10T10:00:00.123Z"),
  count: 7,
  isOn: true,
  data: { a: 1 },
};

async function back(items: readonly Item[]): Promise<Item[]> {
  const input = unnest("i", items, {
    name: ["text", (one) => one.name],
    id: ["uuid", (one) => one.id],
    at: ["timestamptz", (one) => one.at],
    count: ["int", (one) => one.count],
    is_on: ["boolean", (one) => one.isOn],
    data: ["jsonb", (one) => JSON.stringify(one.data)],
  });
  const { rows } =
    await sql<Item>`select i.name, i.id, i.at, i.count, i.is_on as "isOn", i.data from ${input} order by i.ord`.execute(
      database.db,
    );
  return rows;
}

test("texts with everything that an array's text gives a meaning to arrive as they were", async () => {
  const names = [
    "",
    " ",
    "NULL",
    "null",
    "a,b",
    "{a}",
    '"',
    '\\"',
    "\\",
    "\\\\",
    "'",
    "a\nb\tc",
    "{}",
    "é – 漢 😀",
    '{"x":"y,\\"z"}',
  ];
  const items = names.map((name) => ({ ...item, name, data: { name } }));
  expect(await back(items)).toEqual(items);
});

test("nothing stays nothing, and the first and the last moments stay what they are", async () => {
  const none: Item = { name: null, id: null, at: null, count: null, isOn: null, data: null };
  const moments = [
    "0001-01-01T00:00:00.000Z",
    "1969-12-31T23:59:59.999Z",
    "9999-12-31T23:59:59.999Z",
    "+012026-01-01T00:00:00.000Z",
  ];
  const items = [
    none,
    ...moments.map((moment) => ({ ...item, at: new Date(moment), isOn: false, count: -1 })),
    none,
  ];
  expect(await back(items)).toEqual(items);
});

test("a text that is no id is refused by the database, and shifts no other item", async () => {
  for (const wrong of ["NULL", "a,b", `${id},${id}`, '{"', "", "018f0000-0000-7000-8000-00000000000,"]) {
    for (const others of [1, 10]) {
      const items = [{ ...item, id: wrong }, ...Array<Item>(others).fill(item)];
      await expect(back(items), wrong).rejects.toThrow(/invalid input syntax for type uuid/);
    }
  }
});

test("many ids arrive in the order of their items, with the items without an id among them", async () => {
  const ids = Array.from({ length: 300 }, (_, index) => (index % 7 === 3 ? null : randomUUID()));
  const items = ids.map((one) => ({ ...item, id: one }));
  expect(await back(items)).toEqual(items);
  const loud = items.map((one) => ({ ...one, id: one.id?.toUpperCase() ?? null }));
  expect(await back(loud)).toEqual(items);
  for (const wrong of ["018f0000x0000-7000-8000-000000000001", "018f0000-0000-7000-8000-00000000000é"])
    await expect(back([...items, { ...item, id: wrong }])).rejects.toThrow(
      /invalid input syntax for type uuid/,
    );
});
