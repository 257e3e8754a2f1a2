// A small agent: it answers word by word, and remembers what was said to it before.
//
// A fleet worker starts it for each turn. The message comes on stdin, what the conversation's last
// turn left in the file PINION_SNAPSHOT_IN (not set for the first one), and what it writes to
// PINION_SNAPSHOT_OUT is given to the next. Its output is the reply.
import { readFileSync, writeFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

const wordMs = 60;

const message = readFileSync(0, "utf8").trim();
const before = process.env.PINION_SNAPSHOT_IN;
const { said } = before ? JSON.parse(readFileSync(before, "utf8")) : { said: [] };

const answer =
  said.length === 0
    ? `Hello! You said "${message}". I will remember it.`
    : `You said "${message}". Before that you said ${said.map((it) => `"${it}"`).join(", then ")}.`;
for (const word of answer.split(" ")) {
  process.stdout.write(`${word} `);
  await sleep(wordMs);
}
process.stdout.write("\n");

// Only now: a turn that is lost half-way has said nothing that the next one would build on.
writeFileSync(process.env.PINION_SNAPSHOT_OUT, JSON.stringify({ said: [...said, message] }));
