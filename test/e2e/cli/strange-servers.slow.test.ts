/** The command against a port behind which something else answers, or nothing: real processes. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { text } from "node:stream/consumers";
import { expect, inject, onTestFinished, test } from "vitest";

const answers: Record<string, (socket: Socket) => void> = {
  "a web server": (socket) => {
    socket.once("data", () => {
      socket.end("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 2\r\n\r\nhi");
    });
  },
  "a web server that has ended its answer when the error is known": (socket) => {
    socket.write("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    socket.once("data", () => setTimeout(() => socket.destroy(), 200));
  },
  "an SSH server": (socket) => void socket.write("SSH-2.0-OpenSSH_9.6\r\n"),
  "a tunnel whose other end is away": (socket) => void socket.destroy(),
};

async function listen(answer: (socket: Socket) => void): Promise<string> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    answer(socket);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

async function run(...args: string[]): Promise<{ code: number; told: string }> {
  const child = spawn(process.execPath, [inject("pinionMain"), ...args], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { PATH: process.env.PATH, HOME: "/nonexistent", PINION_TOKEN: "pin_pat_x" },
  });
  onTestFinished(() => void child.kill("SIGKILL"));
  const [out, err, [code]] = await Promise.all([
    text(child.stdout!),
    text(child.stderr!),
    once(child, "exit"),
  ]);
  return { code, told: `${out}${err}` };
}

test.for(Object.keys(answers))("%s is told in a line, without a trace, as not reachable", async (name) => {
  const url = await listen(answers[name]!);
  for (const command of [
    ["runs", "list"],
    ["runs", "watch"],
  ]) {
    const { code, told } = await run("--url", url, ...command);
    expect(told, command.join(" ")).toMatch(/^error: (something answers at|http).*\n {2}→ .*\n$/);
    expect(code).toBe(3);
  }
  const doctor = await run("--url", url, "doctor");
  expect(doctor.told).toContain("✗");
  expect(doctor.told).not.toMatch(/^ {4}at |node:/m);
  expect(doctor.code).toBe(1);
});

test("a token that no header can carry is refused in a line", async () => {
  const { code, told } = await run("--token", "pin_pat_a\nb", "runs", "list");
  expect(told).toMatch(/^error: the token of --token is no token/);
  expect(code).toBe(4);
});
