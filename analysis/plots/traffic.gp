# Matrices and strips of bytes, one block of marks.tsv each, on the scale of MOST[p]; nothing sent is no colour. Lines
# between nodes, in pixels, are points.tsv (from x, y, to x, y).
set palette defined (0 "#fff7c2", 1 "#fee08b", 2 "#fdae61", 3 "#f46d43", 4 "#d53e4f", 5 "#9e0142", 6 "#4d004b")
unset grid
set border 15 linecolor rgb "#9ca3af" linewidth 0.7
do for [p = 1:int(N_PANELS)] {
    load "panel.gp"
    unset xtics
    unset ytics
    if (TICS[p] > 0) { set xtics TICS[p] out nomirror scale 0.4 offset 0, 0.5 textcolor rgb "#4b5563" font "Inter,10" }
    if (TICS[p] > 0 && SQUARE[p] > 0) { set ytics TICS[p] out nomirror scale 0.4 offset 0.6, 0 textcolor rgb "#4b5563" font "Inter,10" }
    set cbrange [0:MOST[p]]
    plot "marks.tsv" index p - 1 matrix using (($1 + 0.5) * CELL[p] - 0.5):(SQUARE[p] > 0 ? ($2 + 0.5) * CELL[p] - 0.5 : $2):3 with image
}
load "canvas.gp"
plot "points.tsv" using 1:2:($3 - $1):($4 - $2) with vectors nohead linecolor rgb "#6b7280" linewidth 0.5
