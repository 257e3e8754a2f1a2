// A Pinion device in one file of Go: `daemon COMMAND [ARGUMENT …]`.
//
// Every assignment starts COMMAND with the prompt on its standard input; what it prints is the result. It speaks the device
// protocol of docs/protocol.md, whose section numbers (§) are named below. README.md says how to build and start it.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	pb "pinion-daemon/gen/pinion/v1"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

const (
	slots                     = 2
	kind                      = "sh"
	backoffBase, backoffCap   = 500 * time.Millisecond, 30 * time.Second // §9
	heldLong, helloDeadline   = 10 * time.Second, 10 * time.Second
	ackDeadline, killGrace    = 15 * time.Second, 5 * time.Second
	refusalsMax, endedMax     = 3, 4096
	outputWaitingMax, listMax = 64, 1000
	unacknowledgedMax         = 16
)

type ending int

const (
	undisturbed ending = iota
	cancelled
	superseded
	timedOut
	stopping
)

type attempt struct {
	assignment *pb.Assignment
	process    *os.Process
	end        ending
	sequence   uint64
}

type device struct {
	identity struct {
		InstallID string `json:"install_id"`
		Token     string `json:"token"`
		URL       string `json:"url"`
	}
	command         []string
	outbox, journal string

	mutex    sync.Mutex // guards what follows
	attempts map[string]*attempt
	ended    []string // tokens of ended attempts: a late copy must not start a second program (§5)
	results  map[string]*pb.Completion
	sentAt   map[string]time.Time
	send     func(*pb.ConnectRequest) // nil without a session
	output   chan *pb.ConnectRequest  // droppable, and bounded
	limits   *pb.Limits
	stopping bool
}

// The session (§3, §4)

// session is one stream from its dial to its end: how long it held, and how long to wait if a drain said so.
func (d *device) session(ctx context.Context) (held time.Duration, wait *time.Duration, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	secure := insecure.NewCredentials()
	if strings.HasPrefix(d.identity.URL, "https://") {
		secure = credentials.NewTLS(nil)
	}
	_, host, _ := strings.Cut(strings.TrimRight(d.identity.URL, "/"), "://")
	connection, err := grpc.NewClient(host, grpc.WithTransportCredentials(secure), grpc.WithDisableRetry(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(8<<20)))
	if err != nil {
		return 0, nil, err
	}
	defer connection.Close()
	// The watchdog: nothing received for this long ends the stream (§4).
	ttl := helloDeadline
	watchdog := time.AfterFunc(ttl, cancel)
	defer watchdog.Stop()
	stream, err := pb.NewDeviceServiceClient(connection).Connect(
		metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+d.identity.Token))
	if err != nil {
		return 0, nil, err
	}
	d.mutex.Lock()
	hello := &pb.ConnectRequest{Message: &pb.ConnectRequest_Hello{Hello: d.hello()}}
	d.mutex.Unlock()
	if err := stream.Send(hello); err != nil && !errors.Is(err, io.EOF) {
		return 0, nil, err // on io.EOF, Recv says why
	}
	first, err := stream.Recv()
	if err != nil {
		return 0, nil, err
	}
	if drain := first.GetDrain(); drain != nil {
		return 0, drained(drain), nil
	}
	welcome := first.GetWelcome()
	since := time.Now()
	ttl = welcome.GetTimers().GetTtl().AsDuration()
	watchdog.Reset(ttl)

	control, output := make(chan *pb.ConnectRequest, 4096), make(chan *pb.ConnectRequest, outputWaitingMax)
	go write(ctx, stream, control, output)
	go d.beat(ctx, welcome.GetTimers().GetHeartbeatInterval().AsDuration())
	d.mutex.Lock()
	d.limits, d.sentAt, d.output = welcome.GetLimits(), map[string]time.Time{}, output
	d.send = func(message *pb.ConnectRequest) {
		select {
		case control <- message:
		default:
			cancel() // a server that reads nothing; what was in the queue is told again after the reconnect
		}
	}
	for _, held := range welcome.GetVerdicts() {
		d.obey(held)
	}
	d.sendResults()
	d.mutex.Unlock()
	defer func() {
		d.mutex.Lock()
		d.send, d.output = nil, nil
		d.mutex.Unlock()
	}()
	for {
		message, err := stream.Recv()
		if err != nil {
			return time.Since(since), wait, err
		}
		watchdog.Reset(ttl)
		d.mutex.Lock()
		switch body := message.GetMessage().(type) {
		case *pb.ConnectResponse_Assignment:
			d.assigned(body.Assignment)
		case *pb.ConnectResponse_Cancel:
			d.cancel(body.Cancel)
		case *pb.ConnectResponse_CompletionAck:
			d.acknowledged(body.CompletionAck)
		case *pb.ConnectResponse_Drain: // elsewhere, as soon as the last acknowledgements are read (§8)
			d.send, d.output = nil, nil
			wait = drained(body.Drain)
			ttl = 2 * time.Second
			watchdog.Reset(ttl)
			stream.CloseSend()
		} // heartbeat_ack, and what a newer server may send: that it came is enough
		d.mutex.Unlock()
	}
}

// write is the only writer; output waits for everything else.
func write(ctx context.Context, stream grpc.BidiStreamingClient[pb.ConnectRequest, pb.ConnectResponse],
	control, output <-chan *pb.ConnectRequest) {
	for ctx.Err() == nil {
		var message *pb.ConnectRequest
		select {
		case message = <-control:
		default:
			select {
			case message = <-control:
			case message = <-output:
			case <-ctx.Done():
				return
			}
		}
		if stream.Send(message) != nil {
			return
		}
	}
}

func drained(drain *pb.Drain) *time.Duration {
	switch drain.GetReason() {
	case pb.DrainReason_DRAIN_REASON_REVOKED:
		log.Fatalf("this device was removed; enrol it again (%s)", drain.GetMessage())
	case pb.DrainReason_DRAIN_REASON_REPLACED:
		return nil // by the backoff: two daemons with one identity must not throw each other out at full speed
	}
	wait := drain.GetReconnectAfter().AsDuration()
	return &wait
}

func (d *device) hello() *pb.Hello {
	var held []*pb.HeldAttempt
	for token, each := range d.attempts {
		if d.results[token] == nil && each.end != superseded {
			held = append(held, &pb.HeldAttempt{WorkId: each.assignment.GetWorkId(), AttemptToken: token,
				State: pb.HeldAttemptState_HELD_ATTEMPT_STATE_RUNNING})
		}
	}
	for token, result := range d.results {
		held = append(held, &pb.HeldAttempt{WorkId: result.GetWorkId(), AttemptToken: token,
			State: pb.HeldAttemptState_HELD_ATTEMPT_STATE_FINISHED})
	}
	system := map[string]pb.Os{"darwin": pb.Os_OS_MACOS, "windows": pb.Os_OS_WINDOWS}[runtime.GOOS]
	if system == pb.Os_OS_UNSPECIFIED {
		system = pb.Os_OS_LINUX
	}
	return &pb.Hello{InstallId: d.identity.InstallID, Os: system, AppVersion: "go-example",
		AgentKinds: []string{kind}, MaxConcurrency: slots, Held: held[:min(len(held), listMax)]}
}

func (d *device) beat(ctx context.Context, interval time.Duration) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for sequence := int64(1); ; sequence++ {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		d.mutex.Lock()
		var names []*pb.AttemptRef
		for _, held := range d.hello().GetHeld() { // what runs, and what is not acknowledged
			names = append(names, &pb.AttemptRef{WorkId: held.GetWorkId(), AttemptToken: held.GetAttemptToken()})
		}
		if d.send != nil {
			d.send(&pb.ConnectRequest{Message: &pb.ConnectRequest_Heartbeat{
				Heartbeat: &pb.Heartbeat{Sequence: sequence, Attempts: names}}})
		}
		d.sendResults() // again what nobody has acknowledged (§7)
		d.mutex.Unlock()
	}
}

// obey takes a verdict on what the hello listed (§3). CONTINUE and SEND_RESULT need nothing: results are sent anyway.
func (d *device) obey(held *pb.HeldAttemptVerdict) {
	switch held.GetVerdict() {
	case pb.HeldVerdict_HELD_VERDICT_ABORT, pb.HeldVerdict_HELD_VERDICT_ALREADY_STORED:
		if each := d.attempts[held.GetAttemptToken()]; each != nil {
			each.finish(superseded)
		}
	}
	// What has finished since is sent all the same (ABORT), and its verdict says what became of it.
	if held.GetVerdict() == pb.HeldVerdict_HELD_VERDICT_ALREADY_STORED {
		d.forget(held.GetAttemptToken())
	}
}

// Attempts (§5, §6)

func (d *device) assigned(assignment *pb.Assignment) {
	workID, token := assignment.GetWorkId(), assignment.GetAttemptToken()
	accept := &pb.ConnectRequest{Message: &pb.ConnectRequest_Accept{Accept: &pb.Accept{WorkId: workID, AttemptToken: token}}}
	reject := func(reason pb.RejectReason, message string) {
		d.send(&pb.ConnectRequest{Message: &pb.ConnectRequest_Reject{
			Reject: &pb.Reject{WorkId: workID, AttemptToken: token, Reason: reason, Message: message}}})
	}
	wanted := 0
	for _, each := range d.attempts {
		if each.end != cancelled && each.end != superseded {
			wanted++
		}
	}
	switch {
	case d.send == nil: // drained: the server pushes it again, there or here
	case d.attempts[token] != nil:
		d.send(accept) // the first accept may have been lost with its stream
	case d.results[token] != nil:
		delete(d.sentAt, token)
		d.sendResults()
	case slices.Contains(d.ended, token):
	case d.stopping:
		reject(pb.RejectReason_REJECT_REASON_SHUTTING_DOWN, "the daemon is stopping")
	case assignment.GetAgentKind() != "" && assignment.GetAgentKind() != kind:
		reject(pb.RejectReason_REJECT_REASON_UNSUPPORTED, "only "+kind+" here")
	case assignment.GetKind() != pb.AssignmentKind_ASSIGNMENT_KIND_WATCHER_RUN:
		reject(pb.RejectReason_REJECT_REASON_INVALID, "only watcher runs here")
	case wanted >= slots:
		reject(pb.RejectReason_REJECT_REASON_BUSY, "all slots are taken")
	default:
		each := &attempt{assignment: assignment}
		d.attempts[token] = each
		d.send(accept)
		go d.run(each)
	}
}

// sink gets what a program prints: streams it in pieces, and keeps what fits into a result.
type sink struct {
	device    *device
	attempt   *attempt
	stream    pb.OutputStream
	kept      bytes.Buffer
	truncated bool
}

func (s *sink) Write(data []byte) (int, error) {
	s.device.mutex.Lock()
	defer s.device.mutex.Unlock()
	limits := s.device.limits
	room := max(0, int(limits.GetCompletionOutputBytesMax())-s.kept.Len())
	s.kept.Write(data[:min(room, len(data))])
	s.truncated = s.truncated || len(data) > room
	for piece := range slices.Chunk(data, int(limits.GetOutputChunkBytesMax())) {
		s.attempt.sequence++
		select { // droppable (§6): a piece for which there is no room is dropped, and its number stays unused
		case s.device.output <- &pb.ConnectRequest{Message: &pb.ConnectRequest_Output{Output: &pb.Output{
			WorkId: s.attempt.assignment.GetWorkId(), AttemptToken: s.attempt.assignment.GetAttemptToken(),
			Sequence: s.attempt.sequence, Stream: s.stream, Data: slices.Clone(piece)}}}:
		default:
		}
	}
	return len(data), nil
}

func (d *device) run(each *attempt) {
	assignment, started := each.assignment, time.Now()
	token := assignment.GetAttemptToken()
	stdout := &sink{device: d, attempt: each, stream: pb.OutputStream_OUTPUT_STREAM_STDOUT}
	stderr := &sink{device: d, attempt: each, stream: pb.OutputStream_OUTPUT_STREAM_STDERR}
	program := exec.Command(d.command[0], d.command[1:]...)
	program.Stdin = strings.NewReader(assignment.GetWatcher().GetPrompt()) // closed at its end: an open one hangs agents
	program.Stdout, program.Stderr = stdout, stderr
	program.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	program.WaitDelay = 2 * time.Second                     // for a grandchild that keeps a pipe open
	for _, name := range []string{"PATH", "HOME", "LANG"} { // never all: there may be keys that are not the agent's
		program.Env = append(program.Env, name+"="+os.Getenv(name))
	}
	program.Env = append(program.Env, "PINION_RUN_ID="+assignment.GetWorkId(), "PINION_ATTEMPT_MARK="+token)
	err := program.Start()
	if err == nil {
		os.WriteFile(filepath.Join(d.journal, token), []byte(strconv.Itoa(program.Process.Pid)), 0o600)
		d.mutex.Lock()
		each.process = program.Process
		if each.end != undisturbed {
			each.finish(each.end)
		}
		d.mutex.Unlock()
		if limit := assignment.GetTimeout().AsDuration(); limit > 0 {
			timer := time.AfterFunc(limit, func() {
				d.mutex.Lock()
				defer d.mutex.Unlock()
				each.finish(timedOut)
			})
			defer timer.Stop()
		}
		err = program.Wait()
		endGroup(program.Process.Pid, syscall.SIGKILL) // its children end with it
	}
	os.Remove(filepath.Join(d.journal, token))

	d.mutex.Lock()
	defer d.mutex.Unlock()
	if each.end != cancelled && each.end != superseded {
		result := &pb.Completion{WorkId: assignment.GetWorkId(), AttemptToken: token, Outcome: pb.Outcome_OUTCOME_FAILED,
			Output: strings.ToValidUTF8(stdout.kept.String(), "\uFFFD"), IsOutputTruncated: stdout.truncated,
			Duration: durationpb.New(time.Since(started))}
		if state := program.ProcessState; state != nil {
			if waited := state.Sys().(syscall.WaitStatus); waited.Signaled() {
				result.Signal = map[syscall.Signal]string{syscall.SIGTERM: "SIGTERM", syscall.SIGKILL: "SIGKILL"}[waited.Signal()]
			} else {
				result.ExitCode = proto.Int32(int32(state.ExitCode()))
			}
		}
		switch {
		case each.end == timedOut:
			result.Outcome, result.Reason = pb.Outcome_OUTCOME_TIMEOUT, "its timeout passed"
		case each.end == stopping:
			result.Reason = "the daemon stopped"
		case program.ProcessState != nil && program.ProcessState.Success():
			result.Outcome = pb.Outcome_OUTCOME_COMPLETED
		case err != nil:
			result.Reason = err.Error()
		}
		d.deliver(result)
	}
	delete(d.attempts, token)
	d.ended = append(d.ended[max(0, len(d.ended)-endedMax+1):], token)
	if each.end == cancelled {
		d.sendCancelled(assignment.GetWorkId(), token)
	}
}

func (d *device) cancel(cancel *pb.Cancel) {
	if each := d.attempts[cancel.GetAttemptToken()]; each != nil {
		each.finish(cancelled)
	} else if d.results[cancel.GetAttemptToken()] == nil { // otherwise its completion answers as well
		d.sendCancelled(cancel.GetWorkId(), cancel.GetAttemptToken())
	}
}

func (d *device) sendCancelled(workID, token string) {
	if d.send != nil {
		d.send(&pb.ConnectRequest{Message: &pb.ConnectRequest_Cancelled{
			Cancelled: &pb.Cancelled{WorkId: workID, AttemptToken: token}}})
	}
}

// finish ends an attempt's whole process group; run sees to the rest. The mutex is held.
func (each *attempt) finish(end ending) {
	if each.end == undisturbed || end == superseded {
		each.end = end
	}
	if each.process != nil {
		go endGroup(each.process.Pid, syscall.SIGTERM)
	}
}

// endGroup returns once the last process of the group is gone.
func endGroup(group int, first syscall.Signal) {
	kill := time.Now().Add(killGrace)
	next := first
	for time.Now().Before(kill.Add(killGrace)) && syscall.Kill(-group, next) == nil {
		time.Sleep(20 * time.Millisecond)
		next = 0
		if time.Now().After(kill) {
			next = syscall.SIGKILL
		}
	}
}

// sweep ends what an earlier daemon left running, if it bears our mark: a process id alone may be somebody else's.
func (d *device) sweep() {
	notes, _ := os.ReadDir(d.journal)
	for _, note := range notes {
		path := filepath.Join(d.journal, note.Name())
		text, _ := os.ReadFile(path)
		pid, _ := strconv.Atoi(string(text))
		environment, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "environ"))
		if pid > 1 && bytes.Contains(environment, []byte(note.Name())) {
			syscall.Kill(-pid, syscall.SIGKILL)
		}
		os.Remove(path)
	}
}

// Results (§7)

// deliver makes a result durable first, and sends it then: it is on the disk until the server says that it has it.
func (d *device) deliver(result *pb.Completion) {
	if err := d.store(result); err != nil {
		log.Printf("cannot write the outbox, the result is in memory only: %v", err)
	}
	d.results[result.GetAttemptToken()] = result
	d.sendResults()
}

func (d *device) store(result *pb.Completion) error {
	text, err := proto.Marshal(result)
	if err != nil {
		return err
	}
	path := d.pathOf(result)
	file, err := os.Create(path + ".tmp")
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	if err := errors.Join(err, file.Sync(), file.Close(), os.Rename(path+".tmp", path)); err != nil {
		return err
	}
	directory, err := os.Open(d.outbox)
	if err != nil {
		return err
	}
	return errors.Join(directory.Sync(), directory.Close())
}

func (d *device) sendResults() {
	waiting := 0
	for token := range d.results {
		if time.Since(d.sentAt[token]) < ackDeadline {
			waiting++
		}
	}
	for token, result := range d.results {
		if d.send != nil && waiting < unacknowledgedMax && time.Since(d.sentAt[token]) >= ackDeadline {
			waiting++
			d.sentAt[token] = time.Now()
			d.send(&pb.ConnectRequest{Message: &pb.ConnectRequest_Complete{Complete: d.fitted(result)}})
		}
	}
}

// fitted cuts a result to what this session takes: a message that is too large ends the stream, again and again.
func (d *device) fitted(result *pb.Completion) *pb.Completion {
	limit := int(min(d.limits.GetCompletionOutputBytesMax(), d.limits.GetMessageBytesMax()-8192))
	if len(result.GetOutput()) <= limit {
		return result
	}
	cut := proto.CloneOf(result)
	cut.Output, cut.IsOutputTruncated = strings.ToValidUTF8(result.GetOutput()[:limit], ""), true
	return cut
}

func (d *device) acknowledged(ack *pb.CompletionAck) {
	result := d.results[ack.GetAttemptToken()]
	switch ack.GetVerdict() {
	case pb.CompletionVerdict_COMPLETION_VERDICT_INVALID, pb.CompletionVerdict_COMPLETION_VERDICT_UNKNOWN: // not stored
		if result != nil {
			os.Rename(d.pathOf(result), d.pathOf(result)+".rejected") // for a person to look at
		}
		fallthrough
	case pb.CompletionVerdict_COMPLETION_VERDICT_STORED, pb.CompletionVerdict_COMPLETION_VERDICT_ALREADY_STORED,
		pb.CompletionVerdict_COMPLETION_VERDICT_STORED_LATE, pb.CompletionVerdict_COMPLETION_VERDICT_SUPERSEDED:
		d.forget(ack.GetAttemptToken())
		d.sendResults()
	} // a verdict that we do not know: keep it, and send it again
}

func (d *device) forget(token string) {
	if result := d.results[token]; result != nil {
		os.Remove(d.pathOf(result))
		delete(d.results, token)
	}
}

func (d *device) pathOf(result *pb.Completion) string {
	return filepath.Join(d.outbox, result.GetWorkId()+"."+result.GetAttemptToken()+".completion")
}

func (d *device) load() error {
	paths, err := filepath.Glob(filepath.Join(d.outbox, "*.completion"))
	for _, path := range paths {
		text, problem := os.ReadFile(path)
		result := &pb.Completion{}
		if err = errors.Join(err, problem, proto.Unmarshal(text, result)); err == nil {
			d.results[result.GetAttemptToken()] = result
		}
	}
	return err
}

// For ever (§9)

func (d *device) serve(ctx context.Context) {
	failures, refusals := 0, 0
	for ctx.Err() == nil {
		held, wait, err := d.session(ctx)
		log.Printf("disconnected after %v: %v", held.Round(time.Millisecond), err)
		switch code := status.Code(err); {
		case held == 0 && (code == codes.Unauthenticated || code == codes.PermissionDenied || code == codes.InvalidArgument):
			if refusals++; refusals >= refusalsMax {
				log.Fatalf("the server turns this device down: %v", err)
			}
		default:
			refusals = 0
		}
		failures++
		if held >= heldLong { // only a session that held for a while resets the backoff
			failures = 0
		}
		delay := rand.N(min(backoffCap, backoffBase<<min(failures, 16)))
		if wait != nil {
			delay = *wait
		}
		select {
		case <-time.After(delay):
		case <-ctx.Done():
		}
	}
}

// stop takes nothing new, ends what runs, and gives its results five seconds to be acknowledged; the rest waits.
func (d *device) stop() {
	d.mutex.Lock()
	d.stopping = true
	for _, each := range d.attempts {
		each.finish(stopping)
	}
	d.mutex.Unlock()
	for deadline := time.Now().Add(2*killGrace + 5*time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		d.mutex.Lock()
		isDone := len(d.attempts) == 0 && (len(d.results) == 0 || d.send == nil)
		d.mutex.Unlock()
		if isDone {
			return
		}
	}
}

func main() {
	state := os.Getenv("PINION_STATE_DIR")
	if len(os.Args) < 2 || state == "" {
		log.Fatal("usage: PINION_STATE_DIR=… daemon COMMAND [ARGUMENT …]")
	}
	d := &device{command: os.Args[1:], outbox: filepath.Join(state, "outbox"), journal: filepath.Join(state, "attempts"),
		attempts: map[string]*attempt{}, results: map[string]*pb.Completion{}}
	text, err := os.ReadFile(filepath.Join(state, "identity.json")) // as `pinion device enroll` writes it
	if err = errors.Join(err, json.Unmarshal(text, &d.identity), os.MkdirAll(d.outbox, 0o700), os.MkdirAll(d.journal, 0o700),
		d.load()); err != nil {
		log.Fatal(err)
	}
	if url := os.Getenv("PINION_URL"); url != "" {
		d.identity.URL = url
	}
	d.sweep()
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan os.Signal, 1)
	signal.Notify(stopped, os.Interrupt, syscall.SIGTERM)
	go d.serve(ctx)
	<-stopped
	d.stop()
	cancel()
}
