import { describe, expect, test } from 'vitest';
import { type ImageInfo, infoJson, infoLines } from './image-info.ts';
import { jsonText } from './json.ts';

const FILE: ImageInfo = {
  filename: 'sub/y.qcow2',
  format: 'file',
  virtualSize: 328192,
  actualSize: 208896,
  clusterSize: undefined,
  encrypted: false,
  dirty: false,
  specific: { type: 'file', data: {} },
  children: [],
};

const IMAGE: ImageInfo = {
  filename: 'sub/y.qcow2',
  format: 'qcow2',
  virtualSize: 1048576,
  actualSize: 208896,
  clusterSize: 65536,
  encrypted: false,
  dirty: false,
  specific: {
    type: 'qcow2',
    data: {
      compat: '1.1',
      'compression-type': 'zlib',
      'lazy-refcounts': false,
      bitmaps: [{ flags: ['auto'], name: 'b0', granularity: 65536 }],
      'refcount-bits': 16,
      corrupt: false,
      'extended-l2': false,
    },
  },
  children: [{ name: 'file', info: FILE }],
};

describe('info for people', () => {
  test('an image, what is specific to it, and its file (T-INFO-1)', () => {
    expect(infoLines(IMAGE).join('\n')).toBe(`image: sub/y.qcow2
file format: qcow2
virtual size: 1 MiB (1048576 bytes)
disk size: 204 KiB
cluster_size: 65536
Format specific information:
    compat: 1.1
    compression type: zlib
    lazy refcounts: false
    bitmaps:
        [0]:
            flags:
                [0]: auto
            name: b0
            granularity: 65536
    refcount bits: 16
    corrupt: false
    extended l2: false
Child node '/file':
    filename: sub/y.qcow2
    protocol type: file
    file length: 320 KiB (328192 bytes)
    disk size: 204 KiB`);
  });

  test('what need not be so: encrypted, dirty, size on disk unknown', () => {
    const lines = infoLines({ ...FILE, filename: 'x', actualSize: undefined, encrypted: true, dirty: true });
    expect(lines.slice(3)).toEqual(['disk size: unavailable', 'encrypted: yes', 'cleanly shut down: no']);
  });

  test('nodes with children of their own are images, at any depth (T-INFO-3)', () => {
    const lines = infoLines({
      ...IMAGE,
      specific: undefined,
      children: [{ name: 'file', info: { ...IMAGE, specific: undefined } }],
    });
    expect(
      lines.filter((line) => line.includes('Child') || line.includes('protocol') || line.includes('file format')),
    ).toEqual([
      'file format: qcow2',
      "Child node '/file':",
      '    file format: qcow2',
      "    Child node '/file/file':",
      '        protocol type: file',
    ]);
  });
});

describe('info as JSON (T-INFO-4)', () => {
  test('a raw image on a file', () => {
    const file = { ...FILE, filename: 'a.raw', virtualSize: 1048576, actualSize: 4096 };
    const raw = { ...file, format: 'raw', specific: undefined, children: [{ name: 'file', info: file }] };
    expect(jsonText(infoJson(raw))).toBe(`{
    "children": [
        {
            "name": "file",
            "info": {
                "children": [
                ],
                "virtual-size": 1048576,
                "filename": "a.raw",
                "format": "file",
                "actual-size": 4096,
                "format-specific": {
                    "type": "file",
                    "data": {
                    }
                },
                "dirty-flag": false
            }
        }
    ],
    "virtual-size": 1048576,
    "filename": "a.raw",
    "format": "raw",
    "actual-size": 4096,
    "dirty-flag": false
}`);
  });

  test('unknown values are absent, encrypted is there only when true', () => {
    const sparse = infoJson({ ...FILE, actualSize: undefined, dirty: undefined, specific: undefined });
    expect(Object.keys(JSON.parse(jsonText(sparse)))).toEqual(['children', 'virtual-size', 'filename', 'format']);
    expect(jsonText(infoJson({ ...FILE, encrypted: true }))).toContain('"encrypted": true');
  });
});
