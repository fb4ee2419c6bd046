/** A Linux guest in software emulation, driven by its serial console. */
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { initramfs, MARK } from './initramfs.ts';
import { guestParts } from './parts.ts';

/** A guest that has not answered by then never will, milliseconds: boot and commands take seconds. */
const LIMIT_MS = 120_000;
const READY = `${MARK} ready\n`;
const ENDED = new RegExp(`${MARK} (\\d+)\\n$`);

/** An export of an NBD server, as the guest's next disk: /dev/vda, /dev/vdb, ... */
export interface GuestDisk {
  readonly socket: string;
  readonly export: string;
  /** Requests wait so long for a server that has gone, seconds. Default 0. */
  readonly reconnectDelay?: number;
}

export interface CommandEnd {
  readonly status: number;
  readonly output: string;
}

export class Guest {
  readonly #emulator: ChildProcessWithoutNullStreams;
  readonly #gone: Promise<unknown>;
  /** All that it said, for messages; and what of it is not yet dealt with. */
  #log = '';
  #unread = '';
  #errors = '';

  private constructor(emulator: ChildProcessWithoutNullStreams) {
    this.#emulator = emulator;
    this.#gone = once(emulator, 'close');
    emulator.stdin.on('error', () => {});
    emulator.stdout.setEncoding('latin1').on('data', (text: string) => {
      this.#log += text;
      this.#unread += text.replaceAll('\r', '');
    });
    emulator.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.#errors += text;
    });
  }

  /** Starts it and waits until it takes commands. `folder`: for its files. */
  static async boot(folder: string, disks: readonly GuestDisk[]): Promise<Guest> {
    if (guestParts === undefined) throw new Error('there is no guest to boot');
    const archive = join(folder, 'initramfs');
    writeFileSync(archive, initramfs(guestParts));
    const guest = new Guest(
      spawn(guestParts.emulator, [
        ...['-nodefaults', '-no-user-config', '-no-reboot', '-display', 'none'],
        // Software emulation everywhere, though some machines could do better: the same guest for all.
        ...['-machine', 'q35', '-accel', 'tcg', '-cpu', 'max', '-m', '256', '-smp', '1'],
        // Its clock counts its own instructions, 8 ns each: kernels lose faith in timers on a busy host.
        ...['-icount', 'shift=3'],
        ...['-chardev', 'stdio,id=console,signal=off', '-serial', 'chardev:console'],
        ...['-kernel', guestParts.kernel, '-initrd', archive],
        ...['-append', 'console=ttyS0 quiet loglevel=1 panic=-1 rdinit=/init mitigations=off no_timer_check'],
        ...disks.flatMap((disk, index) => diskArguments(disk, `d${index}`)),
      ]),
    );
    try {
      await guest.#waitFor((text) => text.includes(READY));
    } catch (error) {
      await guest.kill();
      throw error;
    }
    return guest;
  }

  /** Sends a line for its shell; what it printed, and its exit status. */
  async run(command: string): Promise<CommandEnd> {
    this.send(command);
    return this.ended();
  }

  /** When the command that was sent has ended: the same. */
  async ended(): Promise<CommandEnd> {
    const text = await this.#waitFor((output) => ENDED.test(output));
    return { status: Number(ENDED.exec(text)?.[1]), output: text.replace(ENDED, '') };
  }

  /** When the command that was sent has printed a text. */
  async said(text: string): Promise<void> {
    await this.#waitFor((output) => output.includes(text));
  }

  /** The same for a command that must succeed; what it printed. */
  async ok(command: string): Promise<string> {
    const { status, output } = await this.run(command);
    if (status !== 0) throw new Error(`guest: ${command}: status ${status}\n${output}`);
    return output;
  }

  /** Does not wait for the end. */
  send(command: string): void {
    this.#unread = '';
    this.#emulator.stdin.write(`${command}\n`);
  }

  async powerOff(): Promise<void> {
    this.send('poweroff -f');
    await this.#withLimit(this.#gone);
  }

  /** As if its power were cut. */
  async kill(): Promise<void> {
    this.#emulator.kill('SIGKILL');
    await this.#gone;
  }

  async #waitFor(arrived: (text: string) => boolean): Promise<string> {
    while (!arrived(this.#unread)) {
      const event = await this.#withLimit(
        Promise.race([once(this.#emulator.stdout, 'data').then(() => 'data'), this.#gone.then(() => 'gone')]),
      );
      if (event === 'gone') throw new Error(`the guest is gone\n${this.#report()}`);
    }
    return this.#unread;
  }

  async #withLimit<T>(work: Promise<T>): Promise<T> {
    const limit = new AbortController();
    const late = new Promise<never>((_, reject) => {
      const timer = setTimeout(() => {
        // What it would say later would be taken for the answer to something else.
        this.#emulator.kill('SIGKILL');
        reject(new Error(`the guest does not answer\n${this.#report()}`));
      }, LIMIT_MS);
      limit.signal.addEventListener('abort', () => clearTimeout(timer));
    });
    try {
      return await Promise.race([work, late]);
    } finally {
      limit.abort();
    }
  }

  #report(): string {
    return `${this.#errors}${this.#log.slice(-4000)}`;
  }
}

function diskArguments(disk: GuestDisk, id: string): string[] {
  const server = { type: 'unix', path: disk.socket };
  const node = {
    driver: 'nbd',
    'node-name': id,
    server,
    export: disk.export,
    discard: 'unmap',
    ...(disk.reconnectDelay !== undefined && { 'reconnect-delay': disk.reconnectDelay }),
  };
  // Errors go to the guest; by default QEMU would stop it for some.
  const device = `virtio-blk-pci,drive=${id},serial=${id},werror=report,rerror=report,discard=on,write-zeroes=on`;
  return ['-blockdev', JSON.stringify(node), '-device', device];
}
