"""A Pinion device in one file of Python: `python daemon.py COMMAND [ARGUMENT …]`.

Every assignment starts COMMAND with the prompt on its standard input; what it prints is the result. It speaks the device
protocol of docs/protocol.md, whose section numbers (§) are named below. README.md says how to start it.
"""

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import grpc
from pinion.v1 import device_pb2 as pb
from pinion.v1 import device_pb2_grpc, run_pb2

SLOTS = int(os.environ.get("PINION_SLOTS", "2"))
KINDS = os.environ.get("PINION_AGENT_KIND", "sh").split(",")
INHERITED = ("PATH", "HOME", "LANG")  # never the whole environment: it may hold keys that are not the agent's
BACKOFF_BASE, BACKOFF_CAP, HELD_LONG = 0.5, 30.0, 10.0  # seconds (§9)
DEADLINE, ACK_DEADLINE, KILL_GRACE = 10.0, 15.0, 5.0
ENDED_MAX, WAITING_OUTPUT_MAX, REFUSALS_MAX, UNACKNOWLEDGED_MAX = 4096, 64, 3, 16
REFUSALS = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.INVALID_ARGUMENT)


class Attempt:
    def __init__(self, assignment):
        self.work_id, self.token, self.assignment = assignment.work_id, assignment.attempt_token, assignment
        self.process, self.end, self.sequence = None, None, 0  # end: None, "cancelled", "superseded", "timeout", "stopping"

    def names(self):
        return {"work_id": self.work_id, "attempt_token": self.token}


class Device:
    def __init__(self, state: Path, command: list[str]):
        self.identity = json.loads((state / "identity.json").read_text())  # as `pinion device enroll` writes it
        self.url = os.environ.get("PINION_URL") or self.identity["url"]
        self.command, self.outbox_dir, self.journal = command, state / "outbox", state / "attempts"
        for directory in (self.outbox_dir, self.journal):
            directory.mkdir(parents=True, exist_ok=True)
        self.attempts: dict[str, Attempt] = {}
        self.ended: dict[str, None] = {}  # tokens of ended attempts: a late copy must not start a second program (§5)
        self.outbox = {}
        for file in sorted(self.outbox_dir.glob("*.completion")):
            completion = pb.Completion.FromString(file.read_bytes())
            self.outbox[completion.attempt_token] = completion
        self.queue: asyncio.Queue | None = None  # what waits to be written, while there is a session
        self.limits, self.sent_at, self.stopping = pb.Limits(), {}, False

    # The session (§3, §4)

    async def session(self, on_welcome) -> float | None:
        """One stream from its dial to its end. Answers the seconds of a drain; None means: by the backoff."""
        host = self.url.split("://")[1].rstrip("/")
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0),
                   ("grpc.max_receive_message_length", 8 << 20)]
        secure = self.url.startswith("https://")
        channel = (grpc.aio.secure_channel(host, grpc.ssl_channel_credentials(), options) if secure
                   else grpc.aio.insecure_channel(host, options))
        tasks = []
        async with channel:
            try:
                call = device_pb2_grpc.DeviceServiceStub(channel).Connect(
                    metadata=(("authorization", f"Bearer {self.identity['token']}"),))
                await asyncio.wait_for(call.write(pb.ConnectRequest(hello=self.hello())), DEADLINE)
                first = await asyncio.wait_for(call.read(), DEADLINE)
                if first is grpc.aio.EOF:
                    await self.raise_status(call)
                    return None
                if first.WhichOneof("message") == "drain":
                    return self.drained(first.drain)
                welcome = first.welcome
                on_welcome()
                self.queue, self.limits, self.sent_at = asyncio.Queue(), welcome.limits, {}
                tasks += [asyncio.create_task(self.write(call, self.queue)),
                          asyncio.create_task(self.beat(welcome.timers.heartbeat_interval.ToTimedelta().total_seconds()))]
                for verdict in welcome.verdicts:
                    self.obey(verdict)
                self.send_results()
                ttl = welcome.timers.ttl.ToTimedelta().total_seconds()
                while True:  # the watchdog: a silence of the TTL ends the stream (§4)
                    message = await asyncio.wait_for(call.read(), ttl)
                    if message is grpc.aio.EOF:
                        await self.raise_status(call)
                        return None
                    if message.WhichOneof("message") == "drain":
                        seconds = await self.leave(call, message.drain)
                        # Two daemons with one identity must not throw each other out at full speed.
                        return None if message.drain.reason == pb.DRAIN_REASON_REPLACED else seconds
                    self.receive(message)
            finally:
                self.queue = None
                for task in tasks:
                    task.cancel()

    @staticmethod
    async def raise_status(call):
        if await call.code() != grpc.StatusCode.OK:
            raise grpc.aio.AioRpcError(await call.code(), (), (), details=await call.details())

    def hello(self):
        running = [pb.HeldAttempt(**a.names(), state=pb.HELD_ATTEMPT_STATE_RUNNING)
                   for a in self.attempts.values() if a.token not in self.outbox and a.end != "superseded"]
        finished = [pb.HeldAttempt(work_id=c.work_id, attempt_token=c.attempt_token, state=pb.HELD_ATTEMPT_STATE_FINISHED)
                    for c in self.outbox.values()]
        return pb.Hello(install_id=self.identity["install_id"], os=operating_system(), app_version="python-example",
                        agent_kinds=KINDS, max_concurrency=SLOTS, held=(running + finished)[:1000])

    async def write(self, call, queue):
        while True:
            await call.write(await queue.get())

    async def beat(self, interval):
        sequence = 0
        while True:
            await asyncio.sleep(interval)
            sequence += 1
            names = {a.token: a.work_id for a in self.attempts.values() if a.end != "superseded"}
            names |= {c.attempt_token: c.work_id for c in self.outbox.values()}
            refs = [pb.AttemptRef(work_id=run, attempt_token=token) for token, run in names.items()]
            self.send(heartbeat=pb.Heartbeat(sequence=sequence, attempts=refs[:1000]))
            self.send_results()  # again what nobody has acknowledged (§7)

    async def leave(self, call, drain):
        """Goes elsewhere: our side ends, and acknowledgements are read for two seconds more (§8)."""
        due = time.monotonic() + self.drained(drain)
        self.queue = None
        with contextlib.suppress(asyncio.TimeoutError, grpc.aio.AioRpcError):
            await call.done_writing()
            async with asyncio.timeout(2):
                while (message := await call.read()) is not grpc.aio.EOF:
                    if message.WhichOneof("message") == "completion_ack":
                        self.acknowledged(message.completion_ack)
        return max(0.0, due - time.monotonic())

    @staticmethod
    def drained(drain):
        if drain.reason == pb.DRAIN_REASON_REVOKED:
            sys.exit(f"this device was removed; enrol it again ({drain.message})")
        return drain.reconnect_after.ToTimedelta().total_seconds()

    def send(self, **message):
        if self.queue is not None:
            self.queue.put_nowait(pb.ConnectRequest(**message))

    def receive(self, message):
        kind = message.WhichOneof("message")
        if kind == "assignment":
            self.assigned(message.assignment)
        elif kind == "cancel":
            self.cancel(message.cancel)
        elif kind == "completion_ack":
            self.acknowledged(message.completion_ack)
        # heartbeat_ack, and what a newer server may send: that it came is enough.

    def obey(self, held):
        """A verdict on what the hello listed (§3). CONTINUE and SEND_RESULT need nothing: results are sent anyway."""
        if held.verdict in (pb.HELD_VERDICT_ABORT, pb.HELD_VERDICT_ALREADY_STORED):
            if held.attempt_token in self.attempts:
                self.finish(self.attempts[held.attempt_token], "superseded")
        if held.verdict == pb.HELD_VERDICT_ALREADY_STORED:
            self.forget(held.attempt_token)  # after ABORT, what has finished is sent, and its verdict says what became of it

    # Attempts (§5, §6)

    def assigned(self, assignment):
        token = assignment.attempt_token
        names = {"work_id": assignment.work_id, "attempt_token": token}
        wanted = [a for a in self.attempts.values() if a.end not in ("cancelled", "superseded")]
        if token in self.attempts:
            self.send(accept=pb.Accept(**names))  # the first accept may have been lost with its stream
        elif token in self.outbox:
            self.send(complete=self.fitted(self.outbox[token]))
        elif token in self.ended:
            return
        elif self.stopping:
            self.send(reject=pb.Reject(**names, reason=pb.REJECT_REASON_SHUTTING_DOWN, message="the daemon is stopping"))
        elif assignment.agent_kind not in ("", *KINDS):
            self.send(reject=pb.Reject(**names, reason=pb.REJECT_REASON_UNSUPPORTED, message=f"only {KINDS} here"))
        elif assignment.kind != pb.ASSIGNMENT_KIND_WATCHER_RUN:
            self.send(reject=pb.Reject(**names, reason=pb.REJECT_REASON_INVALID, message="only watcher runs here"))
        elif len(wanted) >= SLOTS:
            self.send(reject=pb.Reject(**names, reason=pb.REJECT_REASON_BUSY, message="all slots are taken"))
        else:
            attempt = self.attempts[token] = Attempt(assignment)
            self.send(accept=pb.Accept(**names))
            attempt.task = asyncio.create_task(self.run(attempt))

    async def run(self, attempt):
        started, stdout, truncated = time.monotonic(), bytearray(), False
        assignment, timer, reason = attempt.assignment, None, ""
        limit = self.limits.completion_output_bytes_max or 1 << 20

        async def pump(reader, stream):
            nonlocal truncated
            while data := await reader.read(min(self.limits.output_chunk_bytes_max or 1 << 15, 1 << 15)):
                attempt.sequence += 1
                if stream == run_pb2.OUTPUT_STREAM_STDOUT:
                    truncated |= len(stdout) + len(data) > limit
                    stdout.extend(data[:limit - len(stdout)])
                # Droppable (§6): when much waits to be written, this piece is dropped and its number stays unused.
                if self.queue is not None and self.queue.qsize() < WAITING_OUTPUT_MAX:
                    self.send(output=pb.Output(**attempt.names(), sequence=attempt.sequence, stream=stream, data=data))

        try:
            environment = {name: os.environ[name] for name in INHERITED if name in os.environ}
            environment |= {"PINION_RUN_ID": attempt.work_id, "PINION_ATTEMPT_MARK": attempt.token}
            process = attempt.process = await asyncio.create_subprocess_exec(
                *self.command, env=environment, start_new_session=True,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
            (self.journal / attempt.token).write_text(str(process.pid))
            if attempt.end:
                self.finish(attempt, attempt.end)
            if seconds := assignment.timeout.ToTimedelta().total_seconds():
                timer = asyncio.get_running_loop().call_later(seconds, self.finish, attempt, "timeout")
            pumps = [asyncio.create_task(pump(process.stdout, run_pb2.OUTPUT_STREAM_STDOUT)),
                     asyncio.create_task(pump(process.stderr, run_pb2.OUTPUT_STREAM_STDERR))]
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                process.stdin.write(assignment.watcher.prompt.encode())
                await process.stdin.drain()
            process.stdin.close()  # an open stdin would hang many an agent
            code = await process.wait()
            await self.end_group(process.pid)  # its children end with it
            await asyncio.wait(pumps, timeout=2)
            if code < 0:
                reason = f"{self.command[0]} was ended by {signal.Signals(-code).name}"
            elif code > 0:
                reason = f"{self.command[0]} exited with code {code}"
        except OSError as error:
            code, reason = None, str(error)
        if timer:
            timer.cancel()
        (self.journal / attempt.token).unlink(missing_ok=True)
        if attempt.end in (None, "timeout", "stopping"):
            outcome = {"timeout": pb.OUTCOME_TIMEOUT, "stopping": pb.OUTCOME_FAILED}.get(
                attempt.end, pb.OUTCOME_COMPLETED if code == 0 else pb.OUTCOME_FAILED)
            completion = pb.Completion(
                **attempt.names(), outcome=outcome, output=stdout.decode("utf-8", "replace"), is_output_truncated=truncated,
                reason="the daemon stopped" if attempt.end == "stopping" else reason)
            if code is not None and code >= 0:
                completion.exit_code = code
            elif code is not None:
                completion.signal = signal.Signals(-code).name
            completion.duration.FromMilliseconds(int((time.monotonic() - started) * 1000))
            self.deliver(completion)
        del self.attempts[attempt.token]
        self.ended[attempt.token] = None
        while len(self.ended) > ENDED_MAX:
            del self.ended[next(iter(self.ended))]
        if attempt.end == "cancelled":
            self.send(cancelled=pb.Cancelled(**attempt.names()))

    def cancel(self, cancel):
        attempt = self.attempts.get(cancel.attempt_token)
        if attempt:
            self.finish(attempt, "cancelled")
        elif cancel.attempt_token not in self.outbox:  # its completion answers as well
            self.send(cancelled=pb.Cancelled(work_id=cancel.work_id, attempt_token=cancel.attempt_token))

    def finish(self, attempt, end):
        """Ends an attempt's whole process group; `run` sees to the rest."""
        if attempt.end is None or end == "superseded":
            attempt.end = end
        if attempt.process and attempt.process.returncode is None:
            attempt.killer = asyncio.create_task(self.end_group(attempt.process.pid, signal.SIGTERM))

    @staticmethod
    async def end_group(group, first=signal.SIGKILL):
        deadline = time.monotonic() + KILL_GRACE
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, first)
            while time.monotonic() < deadline + KILL_GRACE:  # until the last of the group is gone
                await asyncio.sleep(0.02)
                os.killpg(group, signal.SIGKILL if time.monotonic() > deadline else 0)

    def sweep(self):
        """Ends what an earlier daemon left running, if it bears our mark (a process id alone may be somebody else's)."""
        for note in self.journal.iterdir():
            with contextlib.suppress(OSError, ValueError):
                pid = int(note.read_text())
                if note.name.encode() in Path(f"/proc/{pid}/environ").read_bytes():
                    os.killpg(pid, signal.SIGKILL)
            note.unlink(missing_ok=True)

    # Results (§7)

    def deliver(self, completion):
        """Durable first, then sent: a result is on the disk until the server says that it has it."""
        file = self.file_of(completion)
        with open(file.with_suffix(".tmp"), "wb") as temporary:
            temporary.write(completion.SerializeToString())
            temporary.flush()
            os.fsync(temporary.fileno())
        file.with_suffix(".tmp").rename(file)
        directory = os.open(self.outbox_dir, os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)
        self.outbox[completion.attempt_token] = completion
        self.send_results()

    def send_results(self):
        now = time.monotonic()
        for token, completion in self.outbox.items():
            waiting = sum(now - sent < ACK_DEADLINE for known, sent in self.sent_at.items() if known in self.outbox)
            is_due = now - self.sent_at.get(token, -ACK_DEADLINE) >= ACK_DEADLINE
            if self.queue is not None and is_due and waiting < UNACKNOWLEDGED_MAX:
                self.sent_at[token] = now
                self.send(complete=self.fitted(completion))

    def fitted(self, completion):
        """Cut to what this session takes: a message that is too large ends the stream, again and again."""
        limit = min(self.limits.completion_output_bytes_max or 1 << 20, (self.limits.message_bytes_max or 4 << 20) - 8192)
        output = completion.output.encode()
        if len(output) <= limit:
            return completion
        cut = pb.Completion()
        cut.CopyFrom(completion)
        cut.output, cut.is_output_truncated = output[:limit].decode("utf-8", "ignore"), True
        return cut

    def acknowledged(self, ack):
        if ack.verdict in (pb.COMPLETION_VERDICT_INVALID, pb.COMPLETION_VERDICT_UNKNOWN):  # not stored
            if ack.attempt_token in self.outbox:
                file = self.file_of(self.outbox[ack.attempt_token])
                file.rename(file.with_suffix(".rejected"))  # for a person to look at
        elif ack.verdict not in (pb.COMPLETION_VERDICT_STORED, pb.COMPLETION_VERDICT_ALREADY_STORED,
                                 pb.COMPLETION_VERDICT_SUPERSEDED, pb.COMPLETION_VERDICT_STORED_LATE):
            return  # a verdict that we do not know: keep it, and send it again
        self.forget(ack.attempt_token)
        self.send_results()

    def forget(self, token):
        completion = self.outbox.pop(token, None)
        if completion is not None:
            self.file_of(completion).unlink(missing_ok=True)

    def file_of(self, completion):
        return self.outbox_dir / f"{completion.work_id}.{completion.attempt_token}.completion"

    # For ever (§9)

    async def serve(self):
        self.sweep()
        failures = refusals = 0
        while True:
            held = {"since": None}
            delay = None
            try:
                delay = await self.session(lambda: held.update(since=time.monotonic()))
                print("the stream ended", flush=True)
            except (grpc.aio.AioRpcError, asyncio.TimeoutError, asyncio.InvalidStateError) as error:
                code = error.code() if isinstance(error, grpc.aio.AioRpcError) else None
                print(f"disconnected: {code or type(error).__name__}", flush=True)
                refused = code in REFUSALS and held["since"] is None
                refusals = refusals + 1 if refused else 0
                if refusals >= REFUSALS_MAX:
                    sys.exit(f"the server turns this device down: {error.details()}")
            # Only a session that held for a while resets the backoff.
            lasted = held["since"] is not None and time.monotonic() - held["since"] >= HELD_LONG
            failures = 0 if lasted else failures + 1
            ceiling = min(BACKOFF_CAP, BACKOFF_BASE * 2 ** min(failures, 16))
            await asyncio.sleep(random.uniform(0, ceiling) if delay is None else delay)

    async def stop(self):
        """Takes nothing new, ends what runs, gives its results five seconds to be acknowledged; the rest waits."""
        self.stopping = True
        for attempt in list(self.attempts.values()):
            self.finish(attempt, "stopping")
        deadline = time.monotonic() + KILL_GRACE + 5
        while (self.attempts or (self.outbox and self.queue)) and time.monotonic() < deadline:
            await asyncio.sleep(0.05)


def operating_system():
    return {"darwin": pb.OS_MACOS, "win32": pb.OS_WINDOWS}.get(sys.platform, pb.OS_LINUX)


async def main():
    if len(sys.argv) < 2 or "PINION_STATE_DIR" not in os.environ:
        sys.exit("usage: PINION_STATE_DIR=… python daemon.py COMMAND [ARGUMENT …]")
    device = Device(Path(os.environ["PINION_STATE_DIR"]), sys.argv[1:])
    serving = asyncio.create_task(device.serve())
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    waiting = asyncio.create_task(stopped.wait())
    await asyncio.wait([serving, waiting], return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        await serving
    await device.stop()
    serving.cancel()


if __name__ == "__main__":
    asyncio.run(main())
