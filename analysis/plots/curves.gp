# Panels of lines with bands. marks.tsv: x, mean, low, high, one block a line, panel by panel (FIRST[p] to LAST[p]).
# points.tsv: the ends of lines (panel, x, y, colour), then the key's strokes in pixels (from x, y, to x, y, colour).
set border 3
set grid ytics
do for [p = 1:int(N_PANELS)] {
    load "panel.gp"
    set xtics X_TIC[p] out nomirror scale 0.5 offset 0, 0.4 textcolor rgb "#4b5563" font "Inter,11"
    set ytics Y_TIC[p] out nomirror scale 0.5 offset 0.4, 0 textcolor rgb "#4b5563" font "Inter,11"
    unset logscale y
    if (LOG[p] > 0) {
        set logscale y
        set ytics (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
    }
    set format y (BARE[p] > 0 ? "" : "%h")
    if (BAND > 0) {
        plot for [b = int(FIRST[p]):int(LAST[p])] "marks.tsv" index b using 1:3:4 with filledcurves linecolor rgb COLOUR[b + 1] fillstyle transparent solid 0.18 noborder
    }
    plot for [b = int(FIRST[p]):int(LAST[p])] "marks.tsv" index b using 1:2 with lines linewidth 1.8 linecolor rgb COLOUR[b + 1], \
         "points.tsv" index 0 using ($1 == p ? $2 : NaN):3:4 with points pointtype 7 pointsize 0.55 linecolor rgb variable
}
unset logscale y
load "canvas.gp"
plot "points.tsv" index 1 using 1:2:($3 - $1):($4 - $2):5 with vectors nohead linewidth 2.5 linecolor rgb variable
