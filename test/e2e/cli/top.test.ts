/** `pinion top` in a real terminal (tmux), against a real server with a device that works. */
import { execFileSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import { existsSync } from "node:fs";
import { delimiter, join, resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { RunStatus } from "#gen/pinion/v1/run_pb.js";
import { useDatabase } from "../../support/database.ts";
import { enrolDevice } from "../../support/device.ts";
import { noticeSkipped } from "../../support/notice.ts";
import { eventually } from "../../support/processes.ts";
import { openTestReplica, type TestReplica } from "../../support/server.ts";
import { getRun, startWork } from "../../support/work.ts";

const root = resolve(import.meta.dirname, "../../..");
const database = useDatabase({ per: "file" });
const hasTmux = (process.env.PATH ?? "").split(delimiter).some((folder) => existsSync(join(folder, "tmux")));
if (!hasTmux) noticeSkipped("pinion top in a terminal", "tmux");

/** A server of its own, so that no other tmux of this user is touched. */
const socket = `pinion-${randomUUID().slice(0, 8)}`;
const tmux = (...args: string[]) => execFileSync("tmux", ["-L", socket, ...args], { encoding: "utf8" });
const screen = () => tmux("capture-pane", "-p", "-t", "top");
const sees = (pattern: RegExp) =>
  eventually(() => pattern.test(screen()) || undefined, `${pattern} on the screen`);

describe.skipIf(!hasTmux)("pinion top", () => {
  let replica: TestReplica;
  beforeAll(async () => {
    replica = await openTestReplica(database.url);
  });
  afterAll(async () => {
    try {
      tmux("kill-server");
    } catch {
      // The last session has ended, and the server with it.
    }
    await replica.stop();
  });

  test("runs appear as they come; enter opens, c asks and cancels, / filters, q leaves the terminal as it was", async () => {
    const { clients, url, token } = replica;
    const device = await enrolDevice(clients, "box");
    const first = await startWork(clients, device);
    const command = `${process.execPath} ${join(root, "src/cli/main.ts")} top`;
    tmux(
      "new-session",
      "-d",
      "-s",
      "top",
      "-x",
      "80",
      "-y",
      "24",
      "-e",
      `PINION_URL=${url}`,
      "-e",
      `PINION_TOKEN=${token}`,
      "sh",
    );
    tmux("send-keys", "-t", "top", command, "Enter");
    await sees(/0\/1 devices {2}0 running {2}1 waiting {2}live/);
    expect(screen()).toContain(first.id.slice(-8));

    // Nothing is typed: the event of the second run brings it.
    const second = await startWork(clients, device);
    await sees(/2 waiting/);
    await sees(new RegExp(second.id.slice(-8)));

    tmux("send-keys", "-t", "top", "j", "Enter");
    await sees(/no output yet/);
    expect(screen()).toContain(first.id);
    tmux("send-keys", "-t", "top", "q");
    await sees(/j\/k move/);

    tmux("send-keys", "-t", "top", "c");
    await sees(/cancel run \S+\? y\/n/);
    tmux("send-keys", "-t", "top", "y");
    await eventually(
      async () => (await getRun(clients, { workId: first.id })).status === RunStatus.CANCELLED || undefined,
      "the cancelled run",
    );
    await sees(/cancelled/);

    tmux("send-keys", "-t", "top", "/", "pend", "Enter");
    await sees(/esc clears/);
    expect(screen()).not.toContain(first.id.slice(-8));
    tmux("resize-window", "-t", "top", "-x", "40", "-y", "12");
    await eventually(
      () =>
        screen()
          .split("\n")
          .every((line) => line.length <= 40) && /pending/.test(screen()),
      "the narrow screen",
    );

    tmux("send-keys", "-t", "top", "q");
    // The shell's screen is back; the command may be longer than its 40 columns.
    await eventually(() => screen().replaceAll("\n", "").includes("main.ts top") || undefined, "the shell");
  }, 60_000);
});
